//! Compiled files: opened, checked, mapped, run.
//!
//! ```no_run
//! use llamac_runtime::{Program, sample::argmax};
//!
//! let program = Program::open("bard.llamac")?;
//! let tokenizer = program.tokenizer()?.ok_or("it has no tokenizer")?;
//! let mut session = program.session()?;
//! let prompt = tokenizer.encode("ROMEO:", true)?;
//! let mut next = argmax(session.prefill(0, &prompt)?) as u32;
//! for _ in 0..40 {
//!     print!("{}", tokenizer.decode(&[next], false)?);
//!     next = argmax(session.decode(&[(0, next)])?.data) as u32;
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Opening reads the header, checks format and version, architecture and CPU features, the section table, the checksums of
//! all sections but the weights, then every number inside; it maps the weights and touches none of them. The tokenizer is
//! opened when it is first asked for.
//!
//! **An artifact contains machine code and is as trusted as a program**: open only what you would execute. Trusted is the code
//! section, which says beside the machine code what each kernel touches; all else is held against it, so that no damage,
//! mistake or change outside that section makes the code leave its memory. Nothing makes foreign code safe.

mod code;
mod error;

pub use error::ArtifactError;

use crate::memory::Region;
use crate::pool::Pool;
use crate::program::Executable;
use crate::session::{Generator, Session};
use crate::text::Tokenizer;
use crate::tiers::{Features, Tier};
use code::MappedCode;
use llamac_formats::artifact::{
    Header, HeaderError, MAGIC, MAX_HEADER, Manifest, Section, SectionKind, Trailer, checksum,
};
use llamac_formats::program;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

/// How to open an artifact.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    /// What the machine is taken to have: [`Features::detect`], unless a test says otherwise.
    pub features: Features,
    /// Whether the checksum of the weights is checked too, which reads all of them.
    pub verify_weights: bool,
    /// Whether the weights are mapped where they lie in the file: nothing is read before it is used, and processes share the
    /// pages, which are huge where the file system has such. Otherwise they are read into memory of their own, on huge pages
    /// where the system gives them.
    pub map_weights: bool,
    /// Threads that read them then: the default number, unless told otherwise.
    pub read_threads: usize,
}

impl Default for OpenOptions {
    fn default() -> OpenOptions {
        let read_threads = crate::machine::default_threads();
        OpenOptions { features: Features::detect(), verify_weights: false, map_weights: true, read_threads }
    }
}

/// An opened artifact, ready to run. Sessions made of it share its code and its mapped weights.
pub struct Program {
    path: PathBuf,
    header: Header,
    manifest: Manifest,
    graph: Region,
    tokenizer_bytes: Option<Arc<Region>>,
    tokenizer: OnceLock<Tokenizer>,
    chat_template: Option<Region>,
    report: Option<Region>,
    executable: Arc<Executable>,
    code: Region,
    /// Where machine code begins in the section.
    code_at: usize,
}

impl Program {
    /// Opens an artifact, or an executable that carries one.
    ///
    /// # Errors
    /// [`ArtifactError`]: the first check that fails.
    pub fn open(path: impl AsRef<Path>) -> Result<Program, ArtifactError> {
        Program::open_with(path, &OpenOptions::default())
    }

    /// The same, with options.
    ///
    /// # Errors
    /// [`ArtifactError`].
    pub fn open_with(path: impl AsRef<Path>, options: &OpenOptions) -> Result<Program, ArtifactError> {
        let path = path.as_ref();
        let (file, base, header) = open_header(path)?;
        let refuse = |error| ArtifactError::Header { path: path.into(), error };
        check_machine(path, &header, &options.features)?;
        header.check_sections().map_err(refuse)?;
        let map = |kind: SectionKind| match header.section(kind) {
            Some(section) => map_section(&file, base, section).map(Some),
            None => Ok(None),
        };
        let needed = |kind: SectionKind| -> Result<Region, ArtifactError> {
            let what = format!("there is no section {kind}");
            map(kind)?.ok_or_else(|| refuse(HeaderError::Sections { what }))
        };
        let (manifest, graph) = (needed(SectionKind::Manifest)?, needed(SectionKind::Graph)?);
        let (program, code) = (needed(SectionKind::Program)?, needed(SectionKind::Code)?);
        let (tokenizer, weights) = (map(SectionKind::Tokenizer)?, needed(SectionKind::Weights)?);
        let weights = match header.section(SectionKind::Weights) {
            Some(section) if !options.map_weights => read_section(&file, base, section, options.read_threads)?,
            _ => weights,
        };
        let (chat_template, report) = (map(SectionKind::ChatTemplate)?, map(SectionKind::Report)?);
        for section in &header.sections {
            let region = match section.kind {
                SectionKind::Manifest => &manifest,
                SectionKind::Graph => &graph,
                SectionKind::Program => &program,
                SectionKind::Code => &code,
                SectionKind::Weights if options.verify_weights => &weights,
                SectionKind::Weights => continue,
                SectionKind::Tokenizer | SectionKind::ChatTemplate | SectionKind::Report => {
                    let optional = match section.kind {
                        SectionKind::Tokenizer => &tokenizer,
                        SectionKind::ChatTemplate => &chat_template,
                        _ => &report,
                    };
                    match optional {
                        Some(region) => region,
                        None => continue,
                    }
                }
            };
            if checksum(region.as_slice()) != section.checksum {
                return Err(ArtifactError::Checksum { path: path.into(), section: section.kind });
            }
        }
        let contents =
            |section: SectionKind| move |what: String| ArtifactError::Contents { path: path.into(), section, what };
        let manifest: Manifest =
            serde_json::from_slice(manifest.as_slice()).map_err(|e| contents(SectionKind::Manifest)(e.to_string()))?;
        let (table, code_at) = code::table(code.as_slice(), &header).map_err(contents(SectionKind::Code))?;
        let mut program: program::Program =
            serde_json::from_slice(program.as_slice()).map_err(|e| contents(SectionKind::Program)(e.to_string()))?;
        str::from_utf8(graph.as_slice()).map_err(|e| contents(SectionKind::Graph)(e.to_string()))?;
        if let Some(template) = &chat_template {
            str::from_utf8(template.as_slice()).map_err(|e| contents(SectionKind::ChatTemplate)(e.to_string()))?;
        }
        program.kernels = table.kernels;
        let mapped = MappedCode::new(&code.as_slice()[code_at..], &program.kernels)?;
        let executable = Executable::new(program, Arc::new(mapped), Arc::new(weights))
            .map_err(|error| ArtifactError::Load { path: path.into(), error: Box::new(error) })?;
        Ok(Program {
            path: path.into(),
            header,
            manifest,
            graph,
            tokenizer_bytes: tokenizer.map(Arc::new),
            tokenizer: OnceLock::new(),
            chat_template,
            report,
            executable: Arc::new(executable),
            code,
            code_at,
        })
    }

    /// Whether a file is an artifact, or an executable that carries one, as far as its first or last bytes tell. What cannot
    /// be read is none.
    pub fn is_artifact(path: &Path) -> bool {
        let Ok(mut file) = File::open(path) else { return false };
        let mut magic = [0; 8];
        if file.read_exact(&mut magic).is_err() {
            return false;
        }
        magic == MAGIC || trailer(&mut file).is_some()
    }

    /// The artifact that the running executable carries, if it carries one.
    pub fn carried() -> Option<PathBuf> {
        let path = std::env::current_exe().ok()?;
        trailer(&mut File::open(&path).ok()?).map(|_| path)
    }

    /// The header of an artifact, read and not judged: for those that look at files of other machines.
    ///
    /// # Errors
    /// [`ArtifactError`] where it is no artifact, of another version, or damaged.
    pub fn read_header(path: &Path) -> Result<Header, ArtifactError> {
        open_header(path).map(|(_, _, header)| header)
    }

    /// Where it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file's header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// What it says of itself.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The checked program with its code and weights.
    pub fn executable(&self) -> &Arc<Executable> {
        &self.executable
    }

    /// The graph that it was made of, after all graph passes, as text.
    pub fn graph(&self) -> &str {
        // Checked when it was opened; the empty text stands for a file that was changed under the mapping.
        str::from_utf8(self.graph.as_slice()).unwrap_or_default()
    }

    /// The machine code of all kernels.
    pub fn code(&self) -> &[u8] {
        &self.code.as_slice()[self.code_at..]
    }

    /// Tokens that end a text.
    pub fn eos(&self) -> &[u32] {
        &self.manifest.eos
    }

    /// The token that begins one.
    pub fn bos(&self) -> Option<u32> {
        self.manifest.bos
    }

    /// The model's chat template, if it has one: Jinja, as `tokenizer_config.json` or `chat_template.jinja` had it.
    pub fn chat_template(&self) -> Option<&str> {
        // Checked when it was opened, as the graph was.
        self.chat_template.as_ref().map(|t| str::from_utf8(t.as_slice()).unwrap_or_default())
    }

    /// What the compiler said of its decisions, as JSON that only it reads; nothing of it is needed to run.
    pub fn report(&self) -> Option<&[u8]> {
        self.report.as_ref().map(Region::as_slice)
    }

    /// Whether it carries a tokenizer.
    pub fn has_tokenizer(&self) -> bool {
        self.tokenizer_bytes.is_some()
    }

    /// The tokenizer, if it carries one; opened at the first call: at once if it is a stored vocabulary, and parsed if it is a
    /// `tokenizer.json` that no stored vocabulary expresses.
    ///
    /// # Errors
    /// [`ArtifactError::Tokenizer`] where the section holds none.
    pub fn tokenizer(&self) -> Result<Option<&Tokenizer>, ArtifactError> {
        let Some(bytes) = &self.tokenizer_bytes else { return Ok(None) };
        if let Some(tokenizer) = self.tokenizer.get() {
            return Ok(Some(tokenizer));
        }
        let vocab = self.executable.program().vocab.unwrap_or(0);
        let parsed = Tokenizer::from_region(bytes, &self.path.display().to_string(), vocab)?;
        Ok(Some(self.tokenizer.get_or_init(|| parsed)))
    }

    /// A session of the language model with the machine's default threads and best tier.
    ///
    /// # Errors
    /// [`ArtifactError`] where memory or threads cannot be had, or it is no language model.
    pub fn session(&self) -> Result<Generator, ArtifactError> {
        let pool = Pool::new(crate::machine::default_threads()).map_err(ArtifactError::Threads)?;
        self.session_on(Arc::new(pool), Tier::detect())
    }

    /// A session of the language model on these threads.
    ///
    /// # Errors
    /// As [`Program::session`].
    pub fn session_on(&self, pool: Arc<Pool>, tier: Tier) -> Result<Generator, ArtifactError> {
        Ok(Generator::new(self.raw_session(pool, tier)?)?)
    }

    /// A session of any program, by the names of its inputs and outputs.
    ///
    /// # Errors
    /// [`ArtifactError::Session`] where memory cannot be had, or the machine has not the tier.
    pub fn raw_session(&self, pool: Arc<Pool>, tier: Tier) -> Result<Session, ArtifactError> {
        Ok(Session::new(Arc::clone(&self.executable), pool, tier)?)
    }
}

/// The file, where the artifact begins in it, and the artifact's header.
fn open_header(path: &Path) -> Result<(File, u64, Header), ArtifactError> {
    let read = |error| ArtifactError::Read { path: path.into(), error };
    let mut file = File::open(path).map_err(read)?;
    let metadata = file.metadata().map_err(read)?;
    if !metadata.is_file() {
        return Err(read(std::io::Error::other("it is no file")));
    }
    let (base, available) = match trailer(&mut file) {
        Some(trailer) => (trailer.offset, trailer.bytes),
        None => (0, metadata.len()),
    };
    let mut first = vec![];
    file.seek(SeekFrom::Start(base)).map_err(read)?;
    (&file).take((MAX_HEADER as u64).min(available)).read_to_end(&mut first).map_err(read)?;
    let header =
        Header::decode(&first, available).map_err(|error| ArtifactError::Header { path: path.into(), error })?;
    Ok((file, base, header))
}

/// The trailer of an executable that carries an artifact. An artifact by itself has none, whatever its last bytes are.
fn trailer(file: &mut File) -> Option<Trailer> {
    let length = file.metadata().ok()?.len();
    let mut magic = [0; MAGIC.len()];
    file.seek(SeekFrom::Start(0)).ok()?;
    file.read_exact(&mut magic).ok()?;
    if magic == MAGIC || length < Trailer::BYTES as u64 {
        return None;
    }
    let mut last = [0; Trailer::BYTES];
    file.seek(SeekFrom::End(-(Trailer::BYTES as i64))).ok()?;
    file.read_exact(&mut last).ok()?;
    Trailer::decode(&last, length)
}

fn map_section(file: &File, base: u64, section: &Section) -> Result<Region, ArtifactError> {
    let what = format!("the section {}", section.kind);
    // Sections lie within the file, as was checked, so nothing overflows but a `usize` of 32 bits.
    let bytes = usize::try_from(section.bytes).unwrap_or(usize::MAX);
    Ok(Region::map_file(file, base + section.offset, bytes, &what)?)
}

fn read_section(file: &File, base: u64, section: &Section, threads: usize) -> Result<Region, ArtifactError> {
    let what = format!("the section {}, read into memory", section.kind);
    let bytes = usize::try_from(section.bytes).unwrap_or(usize::MAX);
    Ok(Region::read_file(file, base + section.offset, bytes, threads, &what)?)
}

fn check_machine(path: &Path, header: &Header, machine: &Features) -> Result<(), ArtifactError> {
    if header.architecture != machine.architecture {
        let (found, here) = (header.architecture.clone(), machine.architecture.clone());
        return Err(ArtifactError::Architecture { path: path.into(), found, here });
    }
    let missing = machine.missing(&header.features);
    if missing.is_empty() {
        return Ok(());
    }
    Err(ArtifactError::Features {
        path: path.into(),
        target: header.target.clone(),
        missing: missing.into_iter().map(str::to_owned).collect(),
        remedy: machine.target(),
    })
}
