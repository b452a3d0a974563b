//! Writing artifacts: a compiled program, its weights and what else it needs, as one file.
//!
//! The bytes depend on the program, the tensors and the tokenizer alone: no time, path, thread count or hash order goes
//! into them. The file is written beside its target under another name, synced and renamed, so that the target is the old
//! file or the new one and nothing between.

mod error;
mod place;

pub use error::WriteError;
pub use place::Place;

use crate::pack::{PackReport, StreamError, pack_to};
use crate::program::Compiled;
use llamac_formats::artifact::{
    Checksum, CodeTable, Header, Manifest, SECTION_ALIGN, Section, SectionKind, Trailer, checksum, join_code,
};
use llamac_formats::program::Program;
use llamac_ir::TensorSource;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

/// What goes into an artifact beside the compiled plan.
pub struct Contents<'a> {
    /// What the artifact says of itself.
    pub manifest: &'a Manifest,
    /// The graph after all graph passes, as text.
    pub graph: &'a str,
    /// A stored vocabulary (`llamac_formats::vocabulary`), or a `tokenizer.json` that none expresses.
    pub tokenizer: Option<&'a [u8]>,
    /// The chat template.
    pub chat_template: Option<&'a [u8]>,
    /// What the compiler decided and why, for `llamac explain`.
    pub report: Option<&'a [u8]>,
    /// An executable to put in front: the result is an executable that carries the artifact.
    pub runner: Option<&'a Path>,
}

/// What was written.
#[derive(Clone, Debug)]
pub struct Written {
    /// Bytes of the file.
    pub bytes: u64,
    /// The header.
    pub header: Header,
    /// What packing did.
    pub packed: PackReport,
}

/// Writes an artifact, or an executable that carries one, to `path`. Leftovers of killed writers of the same file are
/// removed. `progress(done, total)` is told bytes of the weight section.
///
/// # Errors
/// [`WriteError`]; what was at `path` before is untouched then, and nothing is left beside it.
pub fn write(
    path: &Path,
    compiled: &Compiled,
    contents: &Contents<'_>,
    source: &dyn TensorSource,
    threads: usize,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Written, WriteError> {
    let failed = |error| WriteError::Write { path: path.into(), error };
    let mut place = Place::new(path, contents.runner.is_some())?;
    let base = match contents.runner {
        Some(runner) => copy_runner(runner, place.file())?,
        None => 0,
    };
    let program = program_text(&compiled.program)?;
    let code = code_section(compiled)?;
    let manifest = serde_json::to_vec(contents.manifest).map_err(|e| WriteError::Encode(e.to_string()))?;
    let parts: Vec<(SectionKind, &[u8])> = [
        Some((SectionKind::Manifest, &manifest[..])),
        Some((SectionKind::Graph, contents.graph.as_bytes())),
        Some((SectionKind::Program, &program)),
        Some((SectionKind::Code, &code)),
        contents.tokenizer.map(|t| (SectionKind::Tokenizer, t)),
        contents.chat_template.map(|t| (SectionKind::ChatTemplate, t)),
        contents.report.map(|r| (SectionKind::Report, r)),
    ]
    .into_iter()
    .flatten()
    .collect();

    let mut header = header(compiled, contents.manifest, &parts);
    let mut out = Counted { out: place.file(), at: 0 };
    for (kind, bytes) in &parts {
        let at = header.section(*kind).map_or(0, |s| s.offset);
        out.pad_to(at).map_err(failed)?;
        out.write_all(bytes).map_err(failed)?;
    }
    let at = header.section(SectionKind::Weights).map_or(0, |s| s.offset);
    out.pad_to(at).map_err(failed)?;
    let mut sum = Checksum::new();
    let mut sink = |bytes: &[u8]| {
        sum.update(bytes);
        out.write_all(bytes)
    };
    let packed = pack_to(&compiled.weights, source, threads, &mut sink, progress).map_err(|e| match e {
        StreamError::Pack(e) => WriteError::Pack(e),
        StreamError::Write(e) => failed(e),
    })?;
    if let Some(weights) = header.sections.last_mut() {
        weights.checksum = sum.value();
    }
    let file = place.file();
    if base > 0 {
        file.write_all(&Trailer { offset: base, bytes: header.bytes }.encode()).map_err(failed)?;
    }
    file.seek(SeekFrom::Start(base)).and_then(|_| file.write_all(&header.encode())).map_err(failed)?;
    place.finish()?;
    let bytes = base + header.bytes + if base > 0 { Trailer::BYTES as u64 } else { 0 };
    Ok(Written { bytes, header, packed })
}

/// The program as JSON, without its kernels, from which it is certain to come back as it is.
fn program_text(program: &Program) -> Result<Vec<u8>, WriteError> {
    let text = serde_json::to_vec(program).map_err(|e| WriteError::Encode(e.to_string()))?;
    let mut back: Program = serde_json::from_slice(&text).map_err(|e| WriteError::Encode(e.to_string()))?;
    back.kernels.clone_from(&program.kernels);
    if back != *program {
        return Err(WriteError::Encode("the program does not read back as it was written".to_owned()));
    }
    Ok(text)
}

/// The code section: what the kernels are and touch, and their machine code.
fn code_section(compiled: &Compiled) -> Result<Vec<u8>, WriteError> {
    let table = CodeTable {
        architecture: compiled.needs.architecture.clone(),
        features: compiled.needs.features.clone(),
        kernels: compiled.program.kernels.clone(),
    };
    let table = serde_json::to_vec(&table).map_err(|e| WriteError::Encode(e.to_string()))?;
    Ok(join_code(&table, &compiled.code))
}

/// The header, with the checksum of the weights still to come.
fn header(compiled: &Compiled, manifest: &Manifest, parts: &[(SectionKind, &[u8])]) -> Header {
    let sections = parts.iter().map(|(kind, bytes)| (*kind, bytes.len() as u64, checksum(bytes)));
    let sections = sections.chain([(SectionKind::Weights, compiled.weights.total_bytes() as u64, 0)]);
    let mut header = Header {
        bytes: 0,
        compiler: manifest.compiler.clone(),
        target: manifest.target.clone(),
        architecture: compiled.needs.architecture.clone(),
        features: compiled.needs.features.clone(),
        sections: sections.map(|(kind, bytes, checksum)| Section { kind, offset: 0, bytes, checksum }).collect(),
    };
    let mut end = header.encode().len() as u64;
    for section in &mut header.sections {
        section.offset = end.next_multiple_of(SECTION_ALIGN as u64);
        end = section.offset + section.bytes;
    }
    header.bytes = end;
    header
}

/// Copies an executable to the start of a file, without an artifact that it may carry itself, and pads it; where it ends.
fn copy_runner(runner: &Path, to: &mut File) -> Result<u64, WriteError> {
    let read = |error| WriteError::Runner { path: runner.into(), error };
    let mut from = File::open(runner).map_err(read)?;
    let mut length = from.metadata().map_err(read)?.len();
    if length >= Trailer::BYTES as u64 {
        let mut last = [0; Trailer::BYTES];
        from.seek(SeekFrom::End(-(Trailer::BYTES as i64))).and_then(|_| from.read_exact(&mut last)).map_err(read)?;
        if let Some(trailer) = Trailer::decode(&last, length) {
            length = trailer.offset;
        }
        from.rewind().map_err(read)?;
    }
    let copied = io::copy(&mut from.take(length), to).map_err(read)?;
    let end = copied.next_multiple_of(SECTION_ALIGN as u64);
    to.write_all(&vec![0; (end - copied) as usize]).map_err(read)?;
    Ok(end)
}

/// A writer that knows how far it is.
struct Counted<W> {
    out: W,
    at: u64,
}

impl<W: Write> Counted<W> {
    /// Writes zeros up to a place.
    fn pad_to(&mut self, to: u64) -> io::Result<()> {
        self.write_all(&vec![0; to.saturating_sub(self.at) as usize])
    }
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.out.write(bytes)?;
        self.at += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
