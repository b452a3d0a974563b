//! What the command-line tests share: running the binary, and model directories broken on purpose.
#![allow(dead_code)] // Each test program uses its own part.

use serde_json::Value;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The bundled model.
pub fn bard() -> PathBuf {
    root().join("examples/models/bard")
}

/// A model of `tests/models`.
pub fn model(name: &str) -> PathBuf {
    root().join("tests/models").join(name)
}

/// A finished run of the command.
pub struct Run {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// Runs `llamac` with an address space of 8 GB, so that an absurd allocation fails rather than passes.
pub fn llamac<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Run {
    let out = bounded().args(args).output().expect("llamac starts");
    finished(&out)
}

/// The command itself, bounded, for tests that need its pipes.
pub fn bounded() -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -v 8000000 && exec \"$@\"", "sh", env!("CARGO_BIN_EXE_llamac")]);
    command
}

pub fn finished(out: &Output) -> Run {
    Run {
        code: out.status.code(),
        stdout: String::from_utf8_lossy(&out.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&out.stderr).into_owned(),
    }
}

impl Run {
    /// Asserts success and returns stdout.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "stderr: {}", self.stderr);
        self.stdout
    }

    /// Asserts one clear error: a status that is not zero, nothing on stdout, one `error:` that holds every needle.
    #[track_caller]
    pub fn refuses(self, needles: &[&str]) {
        let Run { code, stdout, stderr } = self;
        assert!(matches!(code, Some(c) if c != 0 && c != 101), "status {code:?}, stderr: {stderr}");
        assert!(!stderr.contains("panicked"), "{stderr}");
        assert_eq!(stdout, "", "nothing on stdout where it failed");
        assert_eq!(stderr.matches("error:").count(), 1, "one error: {stderr}");
        for needle in needles {
            assert!(stderr.contains(needle), "{needle:?} is not named in: {stderr}");
        }
    }
}

impl Run {
    /// Asserts that nothing was done for want of a command: its use is shown on stderr.
    #[track_caller]
    pub fn refuses_use(self) {
        assert_eq!(self.code, Some(2), "{}", self.stderr);
        assert!(self.stdout.is_empty() && self.stderr.contains("Usage:"), "{}", self.stderr);
    }
}

/// A copy of a model that can be broken.
pub struct Broken {
    dir: tempfile::TempDir,
}

impl Broken {
    pub fn copy(name: &str) -> Broken {
        let from = if name == "bard" { bard() } else { model(name) };
        let dir = tempfile::tempdir().expect("a temporary directory");
        for entry in std::fs::read_dir(from).expect("the model") {
            let entry = entry.expect("an entry");
            std::fs::copy(entry.path(), dir.path().join(entry.file_name())).expect("copied");
        }
        Broken { dir }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn write(&self, name: &str, bytes: &[u8]) -> &Broken {
        std::fs::write(self.file(name), bytes).expect("written");
        self
    }

    pub fn remove(&self, name: &str) -> &Broken {
        std::fs::remove_file(self.file(name)).expect("removed");
        self
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.file(name)).expect("read")
    }

    pub fn truncate(&self, name: &str, len: usize) -> &Broken {
        let mut bytes = self.read(name);
        bytes.truncate(len);
        self.write(name, &bytes)
    }

    pub fn edit_json(&self, name: &str, edit: impl FnOnce(&mut Value)) -> &Broken {
        let mut json: Value = serde_json::from_slice(&self.read(name)).expect("JSON");
        edit(&mut json);
        self.write(name, &serde_json::to_vec(&json).expect("JSON"))
    }

    pub fn config(&self, key: &str, value: Value) -> &Broken {
        self.edit_json("config.json", |c| c[key] = value)
    }

    /// Edits the header of `model.safetensors`; the data stays.
    pub fn header(&self, edit: impl FnOnce(&mut Value)) -> &Broken {
        let bytes = self.read("model.safetensors");
        let n = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes")) as usize;
        let mut header: Value = serde_json::from_slice(&bytes[8..8 + n]).expect("JSON");
        edit(&mut header);
        let header = serde_json::to_vec(&header).expect("JSON");
        let mut out = (header.len() as u64).to_le_bytes().to_vec();
        out.extend(&header);
        out.extend(&bytes[8 + n..]);
        self.write("model.safetensors", &out)
    }

    /// Edits the data behind one tensor.
    pub fn tensor(&self, name: &str, edit: impl FnOnce(&mut [u8])) -> &Broken {
        let mut bytes = self.read("model.safetensors");
        let n = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes")) as usize;
        let header: Value = serde_json::from_slice(&bytes[8..8 + n]).expect("JSON");
        let at = |i: usize| 8 + n + header[name]["data_offsets"][i].as_u64().expect("an offset") as usize;
        edit(&mut bytes[at(0)..at(1)]);
        self.write("model.safetensors", &bytes)
    }

    /// Runs one token through the model.
    pub fn logits(&self) -> Run {
        llamac(["logits".as_ref(), self.path().as_os_str(), "--ids".as_ref(), "1".as_ref()])
    }
}

/// An artifact with its graph edited, every offset and checksum made right again.
pub fn with_graph(artifact: &[u8], edit: impl FnOnce(&str) -> String) -> Vec<u8> {
    use llamac_formats::artifact::{Header, SectionKind, checksum};
    let mut header = Header::decode(artifact, artifact.len() as u64).expect("a header");
    let section = |kind| *header.section(kind).expect("a section");
    let range = |s: llamac_formats::artifact::Section| s.offset as usize..(s.offset + s.bytes) as usize;
    let graph = std::str::from_utf8(&artifact[range(section(SectionKind::Graph))]).expect("text");
    let graph = edit(graph);
    let mut out = vec![0; header.sections[0].offset as usize];
    for s in &mut header.sections {
        let old = &artifact[s.offset as usize..(s.offset + s.bytes) as usize];
        let new = if s.kind == SectionKind::Graph { graph.as_bytes() } else { old };
        out.resize(out.len().next_multiple_of(4096), 0);
        (s.offset, s.bytes, s.checksum) = (out.len() as u64, new.len() as u64, checksum(new));
        out.extend(new);
    }
    header.bytes = out.len() as u64;
    let encoded = header.encode();
    out[..encoded.len()].copy_from_slice(&encoded);
    out
}
