//! The header: what a file is for, and where its parts are.

use super::bytes::{Reader, Writer};
use super::{FORMAT_VERSION, HeaderError, MAGIC, MAX_HEADER, SECTION_ALIGN, checksum};
use std::fmt;

/// Bytes before the part that the header's checksum covers.
const PREFIX: usize = 24;

/// What a section holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SectionKind {
    /// [`super::Manifest`] as JSON.
    Manifest,
    /// The graph after all graph passes, as text.
    Graph,
    /// [`crate::program::Program`] as JSON, without its kernels.
    Program,
    /// What all kernels are and touch ([`super::CodeTable`]), and their machine code.
    Code,
    /// A stored vocabulary ([`crate::vocabulary`]), or a `tokenizer.json` that none expresses; absent where the model has
    /// none.
    Tokenizer,
    /// The chat template, Jinja as UTF-8 text; absent where the model has none.
    ChatTemplate,
    /// What the compiler decided and why, as JSON for `llamac explain`; not needed to run, and may be absent.
    Report,
    /// The packed weights.
    Weights,
}

impl SectionKind {
    /// Every kind, in the order of the file.
    pub const ALL: [SectionKind; 8] = [
        SectionKind::Manifest,
        SectionKind::Graph,
        SectionKind::Program,
        SectionKind::Code,
        SectionKind::Tokenizer,
        SectionKind::ChatTemplate,
        SectionKind::Report,
        SectionKind::Weights,
    ];

    /// The number in the file: not the place, so that a kind can be added without renaming others.
    pub const fn code(self) -> u32 {
        match self {
            SectionKind::Manifest => 1,
            SectionKind::Graph => 2,
            SectionKind::Program => 3,
            SectionKind::Code => 4,
            SectionKind::Tokenizer => 5,
            SectionKind::Weights => 6,
            SectionKind::ChatTemplate => 7,
            SectionKind::Report => 8,
        }
    }

    /// Whether a file may be without it.
    pub const fn optional(self) -> bool {
        matches!(self, SectionKind::Tokenizer | SectionKind::ChatTemplate | SectionKind::Report)
    }

    /// The inverse of [`SectionKind::code`].
    pub fn from_code(code: u32) -> Option<SectionKind> {
        SectionKind::ALL.into_iter().find(|k| k.code() == code)
    }

    /// `manifest`, `graph`, `program`, `code`, `tokenizer`, `chat template`, `report`, `weights`.
    pub const fn name(self) -> &'static str {
        match self {
            SectionKind::Manifest => "manifest",
            SectionKind::Graph => "graph",
            SectionKind::Program => "program",
            SectionKind::Code => "code",
            SectionKind::Tokenizer => "tokenizer",
            SectionKind::ChatTemplate => "chat template",
            SectionKind::Report => "report",
            SectionKind::Weights => "weights",
        }
    }
}

impl fmt::Display for SectionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Section {
    /// What it holds.
    pub kind: SectionKind,
    /// Bytes from the start of the artifact.
    pub offset: u64,
    /// Bytes.
    pub bytes: u64,
    /// XXH3-64 of them.
    pub checksum: u64,
}

/// The header of an artifact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Bytes of the whole artifact.
    pub bytes: u64,
    /// The version of the compiler that wrote it.
    pub compiler: String,
    /// What was asked for: `native`, `x86-64-v3`, …
    pub target: String,
    /// The architecture of the code, as Rust names it: `x86_64`.
    pub architecture: String,
    /// CPU features that the code needs, sorted: `avx2`, `fma`, …
    pub features: Vec<String>,
    /// The sections, in the order of the file.
    pub sections: Vec<Section>,
}

impl Header {
    /// Where a section is.
    pub fn section(&self, kind: SectionKind) -> Option<&Section> {
        self.sections.iter().find(|s| s.kind == kind)
    }

    /// The header's bytes. Their number depends on the strings and on how many sections there are, not on where these lie.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        out.u64(self.bytes);
        for text in [&self.compiler, &self.target, &self.architecture] {
            out.string(text);
        }
        out.u32(self.features.len() as u32);
        self.features.iter().for_each(|f| out.string(f));
        out.u32(self.sections.len() as u32);
        for s in &self.sections {
            out.u32(s.kind.code());
            out.u32(0);
            out.u64(s.offset);
            out.u64(s.bytes);
            out.u64(s.checksum);
        }
        let body = out.0;
        let mut out = Writer(MAGIC.to_vec());
        out.u32(FORMAT_VERSION);
        out.u32((PREFIX + body.len()) as u32);
        out.u64(checksum(&body));
        out.0.extend(body);
        out.0
    }

    /// Reads a header from the first bytes of an artifact of `available` bytes: magic and version, then whether it is
    /// whole. Nothing in it has been judged but what [`Header::check_sections`] looks at later.
    ///
    /// # Errors
    /// [`HeaderError`], the first that holds.
    pub fn decode(bytes: &[u8], available: u64) -> Result<Header, HeaderError> {
        let damaged = |what: &str| HeaderError::Damaged { what: what.to_owned() };
        if bytes.is_empty() || !bytes.iter().zip(&MAGIC).all(|(a, b)| a == b) {
            return Err(HeaderError::Format);
        }
        let too_short = || damaged("the file ends within it");
        let mut prefix = Reader(bytes.get(MAGIC.len()..).ok_or_else(too_short)?);
        let version = prefix.u32().ok_or_else(too_short)?;
        if version != FORMAT_VERSION {
            return Err(HeaderError::Version { found: version });
        }
        let length = prefix.u32().ok_or_else(too_short)? as usize;
        let sum = prefix.u64().ok_or_else(too_short)?;
        if !(PREFIX..=MAX_HEADER).contains(&length) {
            return Err(damaged("its length is impossible"));
        }
        let body = bytes.get(PREFIX..length).ok_or_else(too_short)?;
        if checksum(body) != sum {
            return Err(damaged("its checksum does not match"));
        }
        let header = parse(body).ok_or_else(|| damaged("its fields do not fit into it"))?;
        if header.bytes != available {
            return Err(HeaderError::Length { found: available, expected: header.bytes });
        }
        Ok(header)
    }

    /// Checks that the sections are those that an artifact has, each once, aligned, in order, behind the header, and within
    /// the file.
    ///
    /// # Errors
    /// [`HeaderError::Sections`] naming the section.
    pub fn check_sections(&self) -> Result<(), HeaderError> {
        let wrong = |what: String| Err(HeaderError::Sections { what });
        let mut end = self.encode().len() as u64;
        let mut last = None;
        for s in &self.sections {
            if last.is_some_and(|last| last >= s.kind) {
                return wrong(format!("section {} comes twice or in the wrong place", s.kind));
            }
            last = Some(s.kind);
            if !s.offset.is_multiple_of(SECTION_ALIGN as u64) {
                return wrong(format!("section {} is at byte {}, no multiple of {SECTION_ALIGN}", s.kind, s.offset));
            }
            if s.offset < end {
                return wrong(format!("section {} at byte {} overlaps what ends at byte {end}", s.kind, s.offset));
            }
            match s.offset.checked_add(s.bytes) {
                Some(e) if e <= self.bytes => end = e,
                _ => {
                    let (at, n, all) = (s.offset, s.bytes, self.bytes);
                    return wrong(format!("section {} has {n} bytes from byte {at} on, the file {all}", s.kind));
                }
            }
        }
        for kind in SectionKind::ALL {
            if !kind.optional() && self.section(kind).is_none() {
                return wrong(format!("there is no section {kind}"));
            }
        }
        Ok(())
    }
}

/// The part behind the prefix; all of it must be used.
fn parse(body: &[u8]) -> Option<Header> {
    let mut read = Reader(body);
    let bytes = read.u64()?;
    let (compiler, target, architecture) = (read.string()?, read.string()?, read.string()?);
    let mut features = vec![];
    for _ in 0..read.u32()? {
        features.push(read.string()?);
    }
    let mut sections = vec![];
    for _ in 0..read.u32()? {
        let kind = SectionKind::from_code(read.u32()?)?;
        if read.u32()? != 0 {
            return None;
        }
        sections.push(Section { kind, offset: read.u64()?, bytes: read.u64()?, checksum: read.u64()? });
    }
    read.0.is_empty().then_some(Header { bytes, compiler, target, architecture, features, sections })
}
