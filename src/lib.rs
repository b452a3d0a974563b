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
