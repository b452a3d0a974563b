//! A model description as it was found: a graph, its weights, its tokenizer.

use llamac_formats::block::mix::is_70b;
use llamac_ir::parse::ParseError;
use llamac_ir::seeded::{SeededError, SeededSource};
use llamac_ir::{Bounds, Graph, Op, TensorSource};
use llamac_models::quant::{Quant, Quantised, RoundedAgain, quantise};
use llamac_models::weights::fit;
use llamac_models::{
    Architecture, Checkpoint, Config, ConfigError, GgufError, GgufModel, ImportError, ModelDir, WeightsError,
};
use llamac_runtime::program::MOST_ROWS;
use llamac_runtime::text::{Tokenizer, TokenizerError};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use thiserror::Error;

/// Sizes asked for; what is absent is taken from the model.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sizes {
    /// Tokens of a sequence: the model's, at most 4096, unless given.
    pub context: Option<usize>,
    /// Most rows of a step: 512 unless given, never more than the context.
    pub chunk: Option<usize>,
    /// Sequences in the cache together: 1 unless given.
    pub slots: Option<usize>,
    /// Rows whose outputs are wanted together: the number of slots unless given.
    pub outputs: Option<usize>,
}

/// The context taken where none is asked for, if the model allows as much.
pub const DEFAULT_CONTEXT: usize = 4096;
/// The chunk taken where none is asked for.
pub const DEFAULT_CHUNK: usize = 512;

/// An opened model.
pub struct Model {
    /// Its name.
    pub name: String,
    /// What was opened, as it was named.
    pub path: PathBuf,
    /// The graph: imported, or read from text.
    pub graph: Graph,
    /// Where its weights come from; `None` for a text graph that came without.
    pub source: Option<Box<dyn TensorSource>>,
    /// The directory that the configuration and tokenizer come from, if there is one.
    pub directory: Option<ModelDir>,
    /// The GGUF file that they come from, if there is one.
    pub gguf: Option<Arc<GgufModel>>,
    /// Worth telling the user.
    pub warnings: Vec<String>,
}

/// Why a model could not be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Another kind of file.
    #[error("{path}: found {found}, expected a Hugging Face directory, a GGUF file or a graph in text form (.lir)")]
    NotAModel {
        /// What was named.
        path: PathBuf,
        /// What is there.
        found: String,
    },
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The tensors.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// A GGUF file.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// The tokenizer.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// A configuration of which no graph can be made.
    #[error("{path}: {error}")]
    Import {
        /// The directory.
        path: PathBuf,
        /// Why.
        error: ImportError,
    },
    /// Blocks that would be rounded again.
    #[error("{path}: {error}")]
    Quant {
        /// The model.
        path: PathBuf,
        /// Which.
        error: RoundedAgain,
    },
    /// A size that the model does not have.
    #[error("{option}: found {found}, expected {expected}")]
    Size {
        /// The option that asked for it.
        option: &'static str,
        /// What was asked for.
        found: usize,
        /// What can be.
        expected: String,
    },
    /// A text that is no graph.
    #[error("{message}")]
    Text {
        /// File, line and column, and what is wrong.
        message: String,
    },
    /// Weights that cannot be made up.
    #[error("{0}; name a source with --weights")]
    Seeded(#[from] SeededError),
    /// Weights beside a model that has its own.
    #[error("{path}: a model brings its own weights: leave --weights out")]
    NeedlessWeights {
        /// The model.
        path: PathBuf,
    },
}

impl Model {
    /// Opens a Hugging Face directory, a GGUF file, or a graph in text form with the weights of `weights` (a directory, a
    /// GGUF file or a safetensors file).
    ///
    /// # Errors
    /// Whatever is wrong with the description, with file and key.
    pub fn open(path: &Path, weights: Option<&Path>, sizes: &Sizes) -> Result<Model, OpenError> {
        let metadata = std::fs::metadata(path)
            .map_err(|e| OpenError::NotAModel { path: path.into(), found: format!("nothing readable ({e})") })?;
        if metadata.is_dir() {
            if weights.is_some() {
                return Err(OpenError::NeedlessWeights { path: path.into() });
            }
            return Model::open_directory(path, sizes);
        }
        if is_gguf(path) {
            if weights.is_some() {
                return Err(OpenError::NeedlessWeights { path: path.into() });
            }
            return Model::open_gguf(path, sizes);
        }
        Model::open_text(path, weights, sizes)
    }

    fn open_directory(path: &Path, sizes: &Sizes) -> Result<Model, OpenError> {
        let directory = ModelDir::open(path)?;
        // Wrong sizes are told before the weights are looked at.
        bounds(directory.config().context, sizes)?;
        let checkpoint = directory.weights()?;
        let warnings = unused(path, &fit(directory.config(), &checkpoint)?.unused);
        let graph = import(path, &directory, &checkpoint, sizes)?;
        Ok(Model {
            name: directory.name(),
            path: path.into(),
            graph,
            source: Some(Box::new(checkpoint)),
            directory: Some(directory),
            gguf: None,
            warnings,
        })
    }

    fn open_gguf(path: &Path, sizes: &Sizes) -> Result<Model, OpenError> {
        let gguf = Arc::new(GgufModel::open(path)?);
        let bounds = bounds(gguf.config().context, sizes)?;
        let graph = gguf.import(bounds).map_err(|error| OpenError::Import { path: path.into(), error })?;
        Ok(Model {
            name: gguf.name(),
            path: path.into(),
            graph,
            source: Some(Box::new(Arc::clone(&gguf))),
            directory: None,
            warnings: unused(path, &gguf.unused()),
            gguf: Some(gguf),
        })
    }

    fn open_text(path: &Path, weights: Option<&Path>, sizes: &Sizes) -> Result<Model, OpenError> {
        const MOST: u64 = 256 << 20;
        let found = |found: String| OpenError::NotAModel { path: path.into(), found };
        let bytes = match std::fs::metadata(path) {
            Ok(m) if m.len() > MOST => return Err(found(format!("a file of {} bytes", m.len()))),
            Ok(m) if !m.is_file() => return Err(found("neither a directory nor a file".into())),
            _ => std::fs::read(path).map_err(|e| found(format!("an unreadable file ({e})")))?,
        };
        if bytes.starts_with(&llamac_formats::artifact::MAGIC) {
            return Err(found("an artifact, which is compiled already".into()));
        }
        if path.extension().is_some_and(|e| e == "json" || e == "safetensors") {
            let of = path.canonicalize().ok().and_then(|p| Some(p.parent()?.display().to_string()));
            return Err(found(format!("one file of a model: name its directory ({})", of.unwrap_or_default())));
        }
        let text = String::from_utf8(bytes).map_err(|_| found("a binary file".into()))?;
        let graph = llamac_ir::read(&text).map_err(|e| OpenError::Text { message: located(path, &e) })?;
        let b = graph.bounds;
        for (bound, found) in [("S", b.rows), ("R", b.outputs), ("slots", b.slots)] {
            if found > MOST_ROWS {
                let message =
                    format!("{}: the bound of {bound} is {found}, expected at most {MOST_ROWS}", path.display());
                return Err(OpenError::Text { message });
            }
        }
        for (option, given, has) in
            [("-c", sizes.context, b.tokens), ("--chunk", sizes.chunk, b.rows), ("--slots", sizes.slots, b.slots)]
        {
            if let Some(found) = given.filter(|&g| g != has) {
                let expected = format!("{has}, which {} was written for", path.display());
                return Err(OpenError::Size { option, found, expected });
            }
        }
        let mut model = Model {
            name: graph.name.clone(),
            path: path.into(),
            graph,
            source: None,
            directory: None,
            gguf: None,
            warnings: vec![],
        };
        match weights {
            None => {}
            Some(w) if is_gguf(w) => {
                let gguf = Arc::new(GgufModel::open(w)?);
                model.source = Some(Box::new(Arc::clone(&gguf)));
                model.gguf = Some(gguf);
            }
            Some(w) => {
                model.directory = w.join("config.json").is_file().then(|| ModelDir::open(w)).transpose()?;
                model.source = Some(Box::new(Checkpoint::open(w)?));
            }
        }
        Ok(model)
    }

    /// Gives the graph other sizes: it is made anew, as it was opened. A graph in text form has its own, and keeps them.
    ///
    /// # Errors
    /// Sizes that the model does not have, and weights that are there no more.
    pub fn resize(&mut self, sizes: &Sizes) -> Result<(), OpenError> {
        if self.is_text() {
            return Ok(());
        }
        if let Some(directory) = &self.directory {
            self.graph = import(&self.path, directory, &directory.weights()?, sizes)?;
        } else if let Some(gguf) = &self.gguf {
            let graph = gguf.import(bounds(gguf.config().context, sizes)?);
            self.graph = graph.map_err(|error| OpenError::Import { path: self.path.clone(), error })?;
        }
        Ok(())
    }

    /// Gives the matrices the types that `quant` chooses, as they are packed; what is kept is told.
    ///
    /// # Errors
    /// Matrices in a block format that would get another.
    pub fn quantise(&mut self, quant: Quant) -> Result<Quantised, OpenError> {
        let is_70b = self
            .config()
            .is_some_and(|c| c.architecture == Architecture::Llama && is_70b(c.layers, c.heads, c.kv_heads));
        quantise(&mut self.graph, quant, is_70b).map_err(|error| OpenError::Quant { path: self.path.clone(), error })
    }

    /// Gives a graph without weights seeded ones.
    ///
    /// # Errors
    /// Weights too large to be made up.
    pub fn seed_weights(&mut self, seed: u64) -> Result<(), OpenError> {
        if self.source.is_some() {
            return Ok(());
        }
        self.source = Some(Box::new(SeededSource::new(&self.graph, seed)?));
        Ok(())
    }

    /// Tokens that end a text.
    pub fn eos(&self) -> &[u32] {
        self.config().map_or(&[], |config| &config.eos)
    }

    /// The token that begins one.
    pub fn bos(&self) -> Option<u32> {
        self.config().and_then(|config| config.bos)
    }

    /// Whether it was read from a graph in text form.
    pub fn is_text(&self) -> bool {
        let named = |path: &Path| path == self.path;
        !self.directory.as_ref().is_some_and(|d| named(d.path()))
            && !self.gguf.as_ref().is_some_and(|g| named(g.path()))
    }

    /// The configuration, of a model that has one.
    pub fn config(&self) -> Option<&Config> {
        let directory = self.directory.as_ref().map(ModelDir::config);
        directory.or_else(|| self.gguf.as_ref().map(|gguf| gguf.config()))
    }

    /// Where the `tokenizer.json` is, if there is one.
    pub fn tokenizer(&self) -> Option<PathBuf> {
        self.directory.as_ref().and_then(ModelDir::tokenizer)
    }

    /// The vocabulary of a GGUF file in its stored form, if there is one.
    ///
    /// # Errors
    /// Whatever is wrong with it, with its key.
    pub fn stored_vocabulary(&self) -> Result<Option<Vec<u8>>, OpenError> {
        Ok(self.gguf.as_ref().map(|gguf| gguf.stored_vocabulary()).transpose()?.flatten())
    }

    /// The chat template, if there is one: Jinja.
    ///
    /// # Errors
    /// A template that cannot be read or is no text.
    pub fn chat_template(&self) -> Result<Option<String>, OpenError> {
        match &self.gguf {
            Some(gguf) => Ok(gguf.chat_template()?.map(str::to_owned)),
            None => Ok(self.directory.as_ref().map(ModelDir::chat_template).transpose()?.flatten()),
        }
    }

    /// The tokenizer, for a model with `vocab` tokens; `None` where the model brings none.
    ///
    /// # Errors
    /// Whatever is wrong with it.
    pub fn open_tokenizer(&self, vocab: usize) -> Result<Option<Tokenizer>, OpenError> {
        if let Some(path) = self.tokenizer() {
            return Ok(Some(Tokenizer::from_file(&path, vocab)?));
        }
        let Some(stored) = self.stored_vocabulary()? else { return Ok(None) };
        let origin = self.source.as_ref().map_or_else(String::new, |source| source.describe());
        Ok(Some(Tokenizer::from_bytes(&stored, &origin, vocab)?))
    }

    /// Whether the graph is a language model: it has the inputs and the output that generation needs.
    pub fn is_language_model(&self) -> bool {
        let input = |want: &str| {
            self.graph.order().iter().any(|&i| matches!(self.graph.op(i), Op::Input { name, .. } if name == want))
        };
        ["tokens", "positions", "slots", "outputs"].iter().all(|n| input(n))
            && matches!(self.graph.outputs(), [(name, _)] if name == "logits")
    }
}

/// Whether a file begins as a GGUF file does.
pub fn is_gguf(path: &Path) -> bool {
    // To open a pipe would be to wait for its writer.
    let is_file = std::fs::metadata(path).is_ok_and(|m| m.is_file());
    let mut first = [0; 4];
    is_file
        && File::open(path).and_then(|mut f| f.read_exact(&mut first)).is_ok()
        && first == llamac_models::gguf::MAGIC
}

/// A warning of tensors that a model does not use.
fn unused(path: &Path, tensors: &[String]) -> Vec<String> {
    let more = if tensors.len() > 1 { format!(" and {} more", tensors.len() - 1) } else { String::new() };
    let warn = |first| format!("{}: the model does not use the tensor {first:?}{more}", path.display());
    tensors.first().map(warn).into_iter().collect()
}

/// `g.lir:3:5: what is wrong`, then the line with a caret.
fn located(path: &Path, error: &ParseError) -> String {
    let shown = error.to_string();
    let excerpt = shown.split_once('\n').map_or("", |(_, excerpt)| excerpt);
    format!("{}:{}:{}: {}\n{excerpt}", path.display(), error.line, error.column, error.message)
}

/// The graph of a directory with these sizes.
fn import(path: &Path, directory: &ModelDir, checkpoint: &Checkpoint, sizes: &Sizes) -> Result<Graph, OpenError> {
    let bounds = bounds(directory.config().context, sizes)?;
    let dtype = |name: &str| checkpoint.tensor(name).map(|t| t.dtype);
    llamac_models::import(directory.config(), &directory.name(), bounds, &dtype)
        .map_err(|error| OpenError::Import { path: path.into(), error })
}

/// Bounds for a model of that context.
fn bounds(model_context: usize, sizes: &Sizes) -> Result<Bounds, OpenError> {
    let at_least_one = |option, size: Option<usize>| match size {
        Some(0) => Err(OpenError::Size { option, found: 0, expected: "at least 1".into() }),
        other => Ok(other),
    };
    let tokens = match at_least_one("-c", sizes.context)? {
        Some(c) if c > model_context => {
            let expected = format!("at most the {model_context} positions that the model was made for");
            return Err(OpenError::Size { option: "-c", found: c, expected });
        }
        Some(c) => c,
        None => model_context.min(DEFAULT_CONTEXT),
    };
    let most = |option, size: Option<usize>, most: usize| match size {
        Some(found) if found > most => Err(OpenError::Size { option, found, expected: format!("at most {most}") }),
        other => Ok(other),
    };
    let slots = most("--slots", at_least_one("--slots", sizes.slots)?, Bounds::MOST_SLOTS)?.unwrap_or(1);
    // A step may hold a row of every slot.
    let chunk = most("--chunk", at_least_one("--chunk", sizes.chunk)?, MOST_ROWS)?;
    let rows = chunk.unwrap_or(DEFAULT_CHUNK).min(tokens * slots);
    let outputs = sizes.outputs.unwrap_or(slots).clamp(1, rows);
    Ok(Bounds { rows, outputs, tokens, slots })
}
