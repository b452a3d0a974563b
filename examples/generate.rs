//! llamac as a library: compile a model in memory and continue a prompt.

use llamac::compile::{compile, pack_weights, session};
use llamac::model::{Model, Sizes};
use llamac_passes::Options;
use llamac_runtime::sample::argmax;
use llamac_runtime::text::Tokenizer;
use llamac_runtime::{Generator, Pool, Tier, machine};
use std::error::Error;
use std::path::Path;
use std::sync::Arc;

fn main() -> Result<(), Box<dyn Error>> {
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/models/bard"));
    let model = Model::open(path, None, &Sizes { context: Some(256), ..Sizes::default() })?;
    let compiled = compile(model.graph.clone(), &Options::default(), false)?;
    let pool = Arc::new(Pool::new(machine::default_threads())?);
    let (weights, _) = pack_weights(&compiled, &model, pool.threads(), &mut |_, _| {})?;
    let mut generator = Generator::new(session(&compiled, weights, pool, Tier::detect())?)?;

    let tokenizer = Tokenizer::from_file(&path.join("tokenizer.json"), generator.vocab())?;
    let prompt = tokenizer.encode("ROMEO:", true)?;
    let mut text = tokenizer.stream(&prompt)?;
    let mut next = argmax(generator.prefill(0, &prompt)?);
    for _ in 0..40 {
        print!("{}", text.push(next)?);
        next = argmax(generator.decode(&[(0, next)])?.data);
    }
    println!("{}", text.finish()?);
    Ok(())
}
