//! A model description as it was found: a graph, its weights, its tokenizer.

use llamac_ir::parse::ParseError;
use llamac_ir::seeded::{SeededError, SeededSource};
use llamac_ir::{Bounds, Graph, Op, TensorSource};
use llamac_models::weights::fit;
use llamac_models::{Checkpoint, ConfigError, ImportError, ModelDir, WeightsError};
use llamac_runtime::program::MOST_ROWS;
use std::path::{Path, PathBuf};
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
    /// Worth telling the user.
    pub warnings: Vec<String>,
}

/// Why a model could not be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Another kind of file.
    #[error("{path}: found {found}, expected a Hugging Face directory or a graph in text form (.lir)")]
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
    /// A configuration of which no graph can be made.
    #[error("{path}: {error}")]
    Import {
        /// The directory.
        path: PathBuf,
        /// Why.
        error: ImportError,
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
    #[error("{path}: a model directory brings its own weights: leave --weights out")]
    NeedlessWeights {
        /// The directory.
        path: PathBuf,
    },
}

impl Model {
    /// Opens a Hugging Face directory, or a graph in text form with the weights of `weights` (a directory or a safetensors
    /// file).
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
        Model::open_text(path, weights, sizes)
    }

    fn open_directory(path: &Path, sizes: &Sizes) -> Result<Model, OpenError> {
        let directory = ModelDir::open(path)?;
        let bounds = bounds(directory.config().context, sizes)?;
        let checkpoint = directory.weights()?;
        let unused = fit(directory.config(), &checkpoint)?.unused;
        let mut warnings = vec![];
        if let Some(first) = unused.first() {
            let more = if unused.len() > 1 { format!(" and {} more", unused.len() - 1) } else { String::new() };
            warnings.push(format!("{}: the model does not use the tensor {first:?}{more}", path.display()));
        }
        let dtype = |name: &str| checkpoint.tensor(name).map(|t| t.dtype);
        let graph = llamac_models::import(directory.config(), &directory.name(), bounds, &dtype)
            .map_err(|error| OpenError::Import { path: path.into(), error })?;
        Ok(Model {
            name: directory.name(),
            path: path.into(),
            graph,
            source: Some(Box::new(checkpoint)),
            directory: Some(directory),
            warnings,
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
        if bytes.starts_with(b"GGUF") {
            return Err(found("a GGUF file".into()));
        }
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
        let (source, directory): (Option<Box<dyn TensorSource>>, _) = match weights {
            None => (None, None),
            Some(w) => {
                let directory = w.join("config.json").is_file().then(|| ModelDir::open(w)).transpose()?;
                (Some(Box::new(Checkpoint::open(w)?)), directory)
            }
        };
        Ok(Model { name: graph.name.clone(), path: path.into(), graph, source, directory, warnings: vec![] })
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
        self.directory.as_ref().map_or(&[], |d| &d.config().eos)
    }

    /// The token that begins one.
    pub fn bos(&self) -> Option<u32> {
        self.directory.as_ref().and_then(|d| d.config().bos)
    }

    /// Where the tokenizer is, if there is one.
    pub fn tokenizer(&self) -> Option<PathBuf> {
        self.directory.as_ref().and_then(ModelDir::tokenizer)
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

/// `g.lir:3:5: what is wrong`, then the line with a caret.
fn located(path: &Path, error: &ParseError) -> String {
    let shown = error.to_string();
    let excerpt = shown.split_once('\n').map_or("", |(_, excerpt)| excerpt);
    format!("{}:{}:{}: {}\n{excerpt}", path.display(), error.line, error.column, error.message)
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
    const MOST_SLOTS: usize = 1 << 16;
    let slots = most("--slots", at_least_one("--slots", sizes.slots)?, MOST_SLOTS)?.unwrap_or(1);
    // A step may hold a row of every slot.
    let chunk = most("--chunk", at_least_one("--chunk", sizes.chunk)?, MOST_ROWS)?;
    let rows = chunk.unwrap_or(DEFAULT_CHUNK).min(tokens * slots);
    let outputs = sizes.outputs.unwrap_or(slots).clamp(1, rows);
    Ok(Bounds { rows, outputs, tokens, slots })
}
