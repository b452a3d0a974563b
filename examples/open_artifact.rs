//! llamac's runtime as a library: open an artifact and use its session. Make one first:
//! `llamac compile examples/models/bard -o bard.llamac --slots 2`.

use llamac_runtime::Program;
use llamac_runtime::sample::{Sampler, SamplingParams};
use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).ok_or("usage: open_artifact FILE.llamac")?;
    let program = Program::open(path)?;
    let tokenizer = program.tokenizer()?.ok_or("the artifact has no tokenizer")?;
    let mut session = program.session()?;
    let mut sampler =
        Sampler::new(SamplingParams { temperature: 0.8, top_k: 40, top_p: 0.95, seed: 7 }, session.vocab())?;

    let prompt = tokenizer.encode("ROMEO:", true)?;
    session.prefill(0, &prompt)?;
    let first = session.sample(&mut sampler).ok_or("nothing ran")?;
    // What follows is tried in slot 1, where there is one; the prompt stays in slot 0.
    let slot = session.slots() - 1;
    session.fork(0, slot)?;
    for attempt in 1..=2 {
        session.rewind(slot, prompt.len())?;
        let mut text = tokenizer.stream(&prompt)?;
        let mut next = first;
        println!("--- attempt {attempt}");
        for _ in 0..30 {
            print!("{}", text.push(next)?);
            session.decode(&[(slot, next)])?;
            next = session.sample(&mut sampler).ok_or("nothing ran")?;
        }
        println!("{}", text.finish()?);
    }
    Ok(())
}
