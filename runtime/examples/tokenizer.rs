//! How long a tokenizer takes to open and to tokenize: stored, and as the `tokenizers` crate has it.
//!
//! ```text
//! cargo run --release -p llamac-runtime --example tokenizer -- tokenizer.json text.txt
//! ```

use llamac_runtime::Region;
use llamac_runtime::text::{Tokenizer, to_vocabulary};
use std::fs::File;
use std::hint::black_box;
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// The median of several runs.
fn median<T>(runs: usize, mut work: impl FnMut() -> Result<T>) -> Result<Duration> {
    let mut times = vec![];
    for _ in 0..runs {
        let start = Instant::now();
        black_box(work()?);
        times.push(start.elapsed());
    }
    times.sort();
    Ok(times[runs / 2])
}

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let (Some(json), Some(text)) = (args.next(), args.next()) else {
        return Err("usage: tokenizer TOKENIZER.JSON TEXT".into());
    };
    let (json, text) = (std::fs::read(json)?, std::fs::read_to_string(text)?);
    let start = Instant::now();
    let stored = to_vocabulary(&json)?;
    println!("tokenizer.json {} bytes, stored {} bytes, made in {:?}", json.len(), stored.len(), start.elapsed());
    let path = std::env::temp_dir().join(format!("vocabulary-{}", std::process::id()));
    File::create(&path)?.write_all(&stored)?;
    let file = File::open(&path)?;
    std::fs::remove_file(&path)?;
    let open = || {
        let region = Arc::new(Region::map_file(&file, 0, stored.len(), "a vocabulary")?);
        let tokenizer = Tokenizer::from_region(&region, "stored", usize::MAX)?;
        Ok((region, tokenizer))
    };
    let first = median(1, || open()?.1.encode("Hello", true).map_err(Into::into))?;
    println!("open, stored and mapped: {:?}; with the first word encoded {first:?}", median(21, open)?);
    let read = || -> Result<Tokenizer> { Ok(Tokenizer::from_json(&json, "tokenizer.json", usize::MAX)?) };
    println!("open, tokenizers crate: {:?}", median(5, read)?);
    let (ours, theirs) = (open()?.1, read()?);
    let (mine, other) = (ours.encode(&text, true)?, theirs.encode(&text, true)?);
    println!("{} bytes of text, {} tokens, alike: {}", text.len(), mine.len(), mine == other);
    println!("encode, stored: {:?}", median(9, || Ok(ours.encode(&text, true)?))?);
    println!("encode, tokenizers crate, warm: {:?}", median(9, || Ok(theirs.encode(&text, true)?))?);
    println!("encode, tokenizers crate, first: {:?}", {
        let fresh = read()?;
        median(1, || Ok(fresh.encode(&text, true)?))?
    });
    println!("decode, stored: {:?}", median(9, || Ok(ours.decode(&mine, false)?))?);
    println!("decode, tokenizers crate: {:?}", median(9, || Ok(theirs.decode(&mine, false)?))?);
    Ok(())
}
