//! Artifacts changed on purpose: sections replaced, checksums made right again, and whatever still opens is run. The tests
//! and the fuzz target share it.
#![allow(dead_code, reason = "each test program uses its own part")]

use llamac_formats::artifact::{Header, MAGIC, Section, SectionKind, checksum};
use llamac_formats::program::{KernelInfo, PortInfo};
use llamac_formats::{DType, Sizes};
use llamac_runtime::{ArtifactError, Data, Generator, OpenOptions, Pool, Program, Session, Tier};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The header of an artifact that has one.
pub fn header(bytes: &[u8]) -> Header {
    Header::decode(bytes, bytes.len() as u64).expect("a header")
}

/// Puts a header back, which must not have grown past the first section.
pub fn put_header(bytes: &mut [u8], header: &Header) {
    let encoded = header.encode();
    assert!(encoded.len() <= header.sections[0].offset as usize);
    bytes[..encoded.len()].copy_from_slice(&encoded);
}

/// Where a section is.
pub fn section(bytes: &[u8], kind: SectionKind) -> Section {
    *header(bytes).section(kind).expect("the section")
}

/// What a section holds.
pub fn contents(bytes: &[u8], kind: SectionKind) -> &[u8] {
    let s = section(bytes, kind);
    &bytes[s.offset as usize..(s.offset + s.bytes) as usize]
}

/// Replaces a section and makes every offset and checksum right again.
pub fn replaced(bytes: &[u8], kind: SectionKind, contents: &[u8]) -> Vec<u8> {
    let mut header = header(bytes);
    let first = header.sections[0].offset;
    let mut out = vec![0; first as usize];
    for s in &mut header.sections {
        let old = &bytes[s.offset as usize..(s.offset + s.bytes) as usize];
        let new = if s.kind == kind { contents } else { old };
        out.resize(out.len().next_multiple_of(4096), 0);
        (s.offset, s.bytes, s.checksum) = (out.len() as u64, new.len() as u64, checksum(new));
        out.extend(new);
    }
    header.bytes = out.len() as u64;
    put_header(&mut out, &header);
    out
}

/// Makes every checksum right where it is, and the length. What is no header even then stays as it is.
pub fn sealed(bytes: &[u8]) -> Vec<u8> {
    const PREFIX: usize = MAGIC.len() + 16;
    let mut out = bytes.to_vec();
    let Some(length) = out.get(12..16).and_then(|b| b.try_into().ok()).map(u32::from_le_bytes) else { return out };
    let length = length as usize;
    if length < PREFIX + 8 || length > out.len() {
        return out;
    }
    let whole = out.len() as u64;
    out[PREFIX..PREFIX + 8].copy_from_slice(&whole.to_le_bytes());
    let sum = checksum(&out[PREFIX..length]);
    out[16..24].copy_from_slice(&sum.to_le_bytes());
    let Ok(mut header) = Header::decode(&out, whole) else { return out };
    for s in &mut header.sections {
        let end = usize::try_from(s.offset.saturating_add(s.bytes)).unwrap_or(usize::MAX);
        if let Some(held) = usize::try_from(s.offset).ok().and_then(|begin| bytes.get(begin..end)) {
            s.checksum = checksum(held);
        }
    }
    let encoded = header.encode();
    if encoded.len() == length {
        out[..length].copy_from_slice(&encoded);
    }
    out
}

/// Pseudo-random numbers, the same in every run.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % n as u64) as usize
    }
}

/// What became of a changed artifact.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was not opened.
    Refused(String),
    /// It was opened, and no session could be had.
    NoSession(String),
    /// It was opened, and its code is not the one that is trusted.
    OtherCode,
    /// Steps ran, or were refused one by one.
    Ran,
}

/// Opens changed artifacts and runs them: their code section must be the trusted one.
pub struct Trial {
    path: PathBuf,
    code: Vec<u8>,
    kernels: Vec<KernelInfo>,
    pools: [Arc<Pool>; 2],
    tries: usize,
}

impl Trial {
    /// Trusts the code of this artifact. Changed ones are written to `path`.
    pub fn new(path: &Path, trusted: &[u8]) -> Trial {
        fs::write(path, trusted).expect("written");
        let program = Program::open(path).expect("the artifact as it was");
        let kernels = program.executable().program().kernels.clone();
        let pools = [1, 2].map(|n| Arc::new(Pool::new(n).expect("threads")));
        Trial { path: path.into(), code: program.code().to_vec(), kernels, pools, tries: 0 }
    }

    /// Opens these bytes, and runs what opens.
    pub fn run(&mut self, bytes: &[u8]) -> Outcome {
        fs::write(&self.path, bytes).expect("written");
        self.tries += 1;
        let program = match Program::open_with(&self.path, &OpenOptions::default()) {
            Ok(program) => program,
            Err(e) => return Outcome::Refused(e.to_string()),
        };
        if program.code() != self.code || program.executable().program().kernels != self.kernels {
            return Outcome::OtherCode;
        }
        if let Ok(Some(tokenizer)) = program.tokenizer() {
            let ids = tokenizer.encode("Once upon a time", true).unwrap_or_default();
            let _ = tokenizer.decode(&ids, false);
        }
        // Two threads now and then: on a busy machine every meeting of them takes long.
        let pool = &self.pools[usize::from(self.tries.is_multiple_of(256))];
        let tier = if self.tries.is_multiple_of(2) { Tier::Portable } else { Tier::detect() };
        match program.session_on(Arc::clone(pool), tier) {
            Ok(mut generator) => generate(&mut generator),
            Err(ArtifactError::Generate(_)) => match program.raw_session(Arc::clone(pool), tier) {
                Ok(mut session) => step(&mut session),
                Err(e) => return Outcome::NoSession(e.to_string()),
            },
            Err(e) => return Outcome::NoSession(e.to_string()),
        }
        Outcome::Ran
    }
}

/// Everything that a generator does. What it refuses, it refuses.
fn generate(generator: &mut Generator) {
    let tokens: Vec<u32> = (0..7).map(|i| (i * 37 + 1) % generator.tokens().max(1) as u32).collect();
    let last = generator.slots().saturating_sub(1);
    let _ = generator.prefill(0, &tokens).map(drop);
    let _ = generator.decode(&[(0, tokens[1])]).map(drop);
    let _ = generator.prefill(last, &tokens[..3]).map(drop);
    let _ = generator.decode(&[(0, tokens[2]), (last, tokens[3])]).map(drop);
    let _ = generator.rewind(0, 2);
    let _ = generator.fork(0, last);
    let _ = generator.decode(&[(last, tokens[4])]).map(drop);
}

/// A step of no language model: zeros of the sizes that the inputs have.
fn step(session: &mut Session) {
    const MOST: usize = 1 << 16;
    for sizes in [Sizes { rows: 3, outputs: 1, tokens: 3 }, Sizes { rows: 1, outputs: 1, tokens: 1 }] {
        let inputs: Vec<PortInfo> = session.program().inputs.clone();
        let n = |p: &PortInfo| p.dims.iter().map(|d| d.value(&sizes)).fold(1, usize::saturating_mul).min(MOST);
        let data: Vec<(&str, Data<'_>)> = inputs
            .iter()
            .map(|p| {
                let (n, words): (usize, &[i32]) = (n(p), &[0; MOST]);
                let data = match p.dtype {
                    DType::I32 => Data::I32(&words[..n]),
                    DType::F32 => Data::F32(&[0.0; MOST][..n]),
                    DType::F16 => Data::F16(&[0; MOST][..n]),
                    DType::BF16 => Data::BF16(&[0; MOST][..n]),
                    _ => Data::Bool(&[0; MOST][..n]),
                };
                (p.name.as_str(), data)
            })
            .collect();
        let _ = session.step(&data).map(drop);
    }
}
