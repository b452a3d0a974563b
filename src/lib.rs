//! llamac as a library: open a model, compile it, run it.
//!
//! [`model::Model::open`] reads a description, [`compile::compile`] takes its graph through the passes to a program,
//! [`compile::pack_weights`] packs its weights, and [`compile::session`] opens a session that runs it; [`artifact::write`]
//! puts it into a file instead; [`export::export`] writes a model as GGUF. [`verify`] compares what runs with the
//! reference interpreter. The command line (`src/cli`) only parses options and prints.
//!
//! From a model to a file, and from the file to tokens; the second half needs `llamac_runtime` alone:
//!
//! ```
//! use llamac::model::{Model, Sizes};
//! use llamac::{artifact, compile};
//! use llamac_codegen::Target;
//! use llamac_runtime::sample::{Sampler, SamplingParams};
//! use std::path::Path;
//!
//! let directory = tempfile::tempdir()?;
//! let file = directory.path().join("bard.llamac");
//! let sizes = Sizes { context: Some(64), slots: Some(2), ..Sizes::default() };
//! let model = Model::open(Path::new("examples/models/bard"), None, &sizes)?;
//! let options = llamac_passes::Options::default();
//! let compiled = compile::compile_for(model.graph.clone(), &options, Target::Native, false)?;
//! let manifest = artifact::manifest(&model, &compiled, &options, Target::Native);
//! artifact::write(&file, &model, &compiled, &manifest, None, 1, &mut |_, _| {})?;
//!
//! let program = llamac_runtime::Program::open(&file)?;
//! let tokenizer = program.tokenizer()?.ok_or("it has no tokenizer")?;
//! let mut session = program.session()?;
//! let mut sampler = Sampler::new(SamplingParams::GREEDY, session.vocab())?;
//!
//! let prompt = tokenizer.encode("ROMEO:", true)?;
//! session.prefill(0, &prompt)?;
//! let first = session.sample(&mut sampler).ok_or("nothing ran")?;
//! session.fork(0, 1)?;
//! let both = session.decode(&[(0, first), (1, first)])?;
//! assert_eq!(both.row(0), both.row(1)); // a fork goes on as what it was forked from
//! let second = session.sample(&mut sampler);
//! session.rewind(1, prompt.len())?;
//! session.decode(&[(1, first)])?;
//! assert_eq!(session.sample(&mut sampler), second); // and so does what was rewound
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Several sequences together: [`llamac_runtime::Batch`] runs prompts in common steps and then a row of every sequence in each
//! step; a sequence that ends leaves its place to the next prompt.
//!
//! ```
//! # use llamac::{compile, model::{Model, Sizes}};
//! # use std::{path::Path, sync::Arc};
//! use llamac_runtime::sample::{Sampler, SamplingParams};
//! use llamac_runtime::{Batch, Generator};
//!
//! // A slot for each of two sequences, 64 tokens each.
//! let sizes = Sizes { context: Some(64), slots: Some(2), ..Sizes::default() };
//! # let path = Path::new("examples/models/bard");
//! # let model = Model::open(path, None, &sizes)?;
//! # let compiled = compile::compile(model.graph.clone(), &llamac_passes::Options::default(), false)?;
//! # let (weights, _) = compile::pack_weights(&compiled, &model, 1, &mut |_, _| {})?;
//! # let pool = Arc::new(llamac_runtime::Pool::new(1)?);
//! # let session = compile::session(&compiled, weights, pool, llamac_runtime::Tier::detect())?;
//! # let tokenizer = model.open_tokenizer(2048)?.ok_or("it has no tokenizer")?;
//! let mut generator = Generator::new(session)?;
//! let mut prompts = ["ROMEO:", "JULIET:", "KING:"].into_iter().enumerate();
//! let mut texts = vec![vec![]; 3];
//! let mut whose = [0; 2];
//!
//! let mut batch = Batch::new(&mut generator, 2)?;
//! loop {
//!     while batch.free() > 0 {
//!         let Some((i, prompt)) = prompts.next() else { break };
//!         let params = SamplingParams { temperature: 0.8, top_k: 40, top_p: 0.95, seed: i as u64 };
//!         let sampler = Sampler::new(params, batch.generator().vocab())?;
//!         // As many samplers, as many sequences of this prompt.
//!         let slots = batch.add(&tokenizer.encode(prompt, true)?, vec![sampler])?;
//!         whose[slots[0]] = i;
//!     }
//!     if batch.running() == 0 {
//!         break;
//!     }
//!     for chosen in batch.step()?.to_vec() {
//!         let text = &mut texts[whose[chosen.slot]];
//!         text.push(chosen.token);
//!         if text.len() == 8 || batch.is_full(chosen.slot) {
//!             batch.remove(chosen.slot)?;
//!         }
//!     }
//! }
//! assert!(texts.iter().all(|text| text.len() == 8));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod artifact;
pub mod compile;
pub mod export;
pub mod machine;
pub mod model;
pub mod profile;
pub mod report;
pub mod trace;
pub mod traffic;
pub mod verify;
pub mod work;
