//! Artifacts with other contents and right checksums: refused, or harmless. A checksum is no signature, so everything outside
//! the code section may say anything, and must not make the trusted code leave its memory.
//!
//! What opens is run, in a process of its own whose end is looked at.

#[path = "support/changed.rs"]
mod changed;
#[path = "support/tiny.rs"]
mod tiny;

use changed::{Outcome, Random, Trial, contents, header, put_header, replaced, sealed};
use llamac_formats::artifact::SectionKind;
use llamac_passes::FusionSet;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Seek, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Names the directory in which a child process works.
const CHILD: &str = "LLAMAC_MUTATIONS";

/// The most memory that a child may have touched, KiB.
const MOST_KIB: u64 = 400 << 10;

/// Every value of a JSON text that `wanted` takes, by its place.
fn places(value: &Value, wanted: &dyn Fn(&Value) -> bool) -> Vec<String> {
    fn walk(value: &Value, at: String, wanted: &dyn Fn(&Value) -> bool, out: &mut Vec<String>) {
        if wanted(value) {
            out.push(at.clone());
        }
        match value {
            Value::Array(a) => a.iter().enumerate().for_each(|(i, v)| walk(v, format!("{at}/{i}"), wanted, out)),
            Value::Object(o) => o.iter().for_each(|(k, v)| walk(v, format!("{at}/{k}"), wanted, out)),
            _ => {}
        }
    }
    let mut out = vec![];
    walk(value, String::new(), wanted, &mut out);
    out
}

/// What a number becomes.
fn others(old: &Value) -> Vec<Value> {
    let Some(n) = old.as_u64() else { return vec![0.into(), (-1e30).into(), f64::MAX.into()] };
    let mut all: Vec<Value> = [0, 1, n.wrapping_add(1), n.wrapping_sub(1), n.wrapping_mul(2), n ^ 64, n << 20]
        .into_iter()
        .chain([1 << 20, 1 << 31, 1 << 40, 1 << 62, u64::MAX])
        .filter(|v| *v != n)
        .map(Value::from)
        .collect();
    all.push((-1).into());
    all
}

fn is_operand(value: &Value) -> bool {
    let kinds = ["Arena", "Weight", "State", "Input", "Output"];
    value.as_object().is_some_and(|o| o.len() == 1 && kinds.iter().any(|k| o.contains_key(*k)))
}

fn is_dtype(value: &Value) -> bool {
    ["f32", "f16", "bf16", "i32", "bool", "q8", "q4_k"].iter().any(|d| value == d)
}

/// Runs changed artifacts, noting before each what it is.
struct Child {
    trial: Trial,
    intact: Vec<u8>,
    note: File,
    counts: BTreeMap<&'static str, usize>,
}

impl Child {
    fn run(&mut self, what: &str, bytes: &[u8]) {
        self.note.rewind().unwrap();
        writeln!(self.note, "{what:<400}").unwrap();
        let name = match self.trial.run(bytes) {
            Outcome::Refused(error) | Outcome::NoSession(error) if error.contains('\n') => panic!("{what}: {error}"),
            Outcome::Refused(_) => "refused",
            Outcome::NoSession(_) => "no session",
            Outcome::OtherCode => "other code",
            Outcome::Ran => "ran",
        };
        *self.counts.entry(name).or_default() += 1;
    }

    fn json(&mut self, kind: SectionKind, what: &str, value: &Value) {
        let bytes = replaced(&self.intact, kind, &serde_json::to_vec(value).unwrap());
        self.run(&format!("{kind}: {what}"), &bytes);
    }

    /// Numbers, one after the other: `each` of the values that it may become.
    fn numbers(&mut self, kind: SectionKind, each: usize, random: &mut Random) {
        let intact: Value = serde_json::from_slice(contents(&self.intact, kind)).unwrap();
        for place in places(&intact, &Value::is_number) {
            let values = others(intact.pointer(&place).unwrap());
            for _ in 0..each {
                let mut changed = intact.clone();
                let value = &values[random.below(values.len())];
                *changed.pointer_mut(&place).unwrap() = value.clone();
                self.json(kind, &format!("{place} = {value}"), &changed);
            }
        }
    }

    /// Operands that stand elsewhere, other dtypes, switches turned, things that are not there.
    fn structure(&mut self, random: &mut Random) {
        let kind = SectionKind::Program;
        let intact: Value = serde_json::from_slice(contents(&self.intact, kind)).unwrap();
        let operands = places(&intact, &is_operand);
        for place in &operands {
            let mut changed = intact.clone();
            let from = &operands[random.below(operands.len())];
            *changed.pointer_mut(place).unwrap() = intact.pointer(from).unwrap().clone();
            self.json(kind, &format!("{place} = {from}"), &changed);
        }
        for place in places(&intact, &is_dtype) {
            for dtype in ["f32", "f16", "bf16", "i32", "bool", "q8", "q4_k"] {
                let mut changed = intact.clone();
                *changed.pointer_mut(&place).unwrap() = dtype.into();
                self.json(kind, &format!("{place} = {dtype}"), &changed);
            }
        }
        for place in places(&intact, &Value::is_boolean) {
            let mut changed = intact.clone();
            let switch = changed.pointer_mut(&place).unwrap();
            *switch = (!switch.as_bool().unwrap()).into();
            self.json(kind, &format!("{place} turned"), &changed);
        }
        for place in places(&intact, &|v| v.as_array().is_some_and(|a| !a.is_empty())) {
            let length = intact.pointer(&place).unwrap().as_array().unwrap().len();
            for _ in 0..length.min(2) {
                let at = [random.below(length), random.below(length)];
                type Edit = fn(&mut Vec<Value>, [usize; 2]);
                let edits: [Edit; 3] =
                    [|a, [i, _]| drop(a.remove(i)), |a, [i, j]| a.swap(i, j), |a, [i, j]| a.insert(i, a[j].clone())];
                for (name, edit) in ["without", "swapped", "twice"].into_iter().zip(edits) {
                    let mut changed = intact.clone();
                    edit(changed.pointer_mut(&place).unwrap().as_array_mut().unwrap(), at);
                    self.json(kind, &format!("{place} {name} {at:?}"), &changed);
                }
            }
        }
        for place in places(&intact, &Value::is_object).iter().skip(1) {
            let mut changed = intact.clone();
            *changed.pointer_mut(place).unwrap() = Value::Null;
            self.json(kind, &format!("{place} null"), &changed);
        }
    }

    /// Bits of the header, the section table and of what is no JSON.
    fn bytes(&mut self, random: &mut Random) {
        let first = header(&self.intact).sections[0].offset as usize;
        let length = header(&self.intact).encode().len().min(first);
        for at in 8..length {
            for value in [0, 0xff, self.intact[at] ^ (1 << random.below(8))] {
                let mut changed = self.intact.clone();
                changed[at] = value;
                self.run(&format!("byte {at} of the header = {value}"), &sealed(&changed));
            }
        }
        for kind in [SectionKind::Graph, SectionKind::Tokenizer, SectionKind::Weights, SectionKind::Program] {
            let old = contents(&self.intact, kind).to_vec();
            for _ in 0..60 {
                let mut new = old.clone();
                let (at, value) = (random.below(old.len()), random.below(256) as u8);
                match random.below(3) {
                    0 => new[at] = value,
                    1 => new.truncate(at),
                    _ => new.insert(at, value),
                }
                let bytes = replaced(&self.intact, kind, &new);
                self.run(&format!("{kind} with byte {at} cut, added or {value}"), &bytes);
            }
        }
        // What the header says of the code must be what the code section says.
        let mut header = header(&self.intact);
        header.features.clear();
        let mut changed = self.intact.clone();
        put_header(&mut changed, &header);
        self.run("no features", &changed);
    }
}

/// The work of a child process; nothing where there is no parent.
#[test]
fn child() {
    let Some(directory) = std::env::var_os(CHILD).map(PathBuf::from) else { return };
    let mut counts = BTreeMap::new();
    // The unfused program has three times as many numbers.
    for (seed, fusion, each) in [(1, FusionSet::All, 3), (2, FusionSet::None, 1)] {
        let intact = tiny::artifact(&directory, fusion);
        let trial = Trial::new(&directory.join("changed.llamac"), &intact);
        let note = File::create(directory.join("note")).unwrap();
        let mut child = Child { trial, intact, note, counts };
        let mut random = Random(seed);
        let intact = child.intact.clone();
        child.run("as it was", &intact);
        assert_eq!(child.counts.get("ran"), Some(&1), "it runs as it was");
        child.counts.clear();
        child.numbers(SectionKind::Program, each, &mut random);
        child.numbers(SectionKind::Manifest, 1, &mut random);
        child.structure(&mut random);
        child.bytes(&mut random);
        counts = child.counts;
        fs::write(directory.join(format!("counts-{fusion}")), serde_json::to_vec(&counts).unwrap()).unwrap();
        counts = BTreeMap::new();
    }
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak =
        status.lines().find_map(|l| l.strip_prefix("VmHWM:")?.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    fs::write(directory.join("peak"), peak.unwrap_or(0).to_string()).unwrap();
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

#[test]
fn changed_artifacts_are_refused_or_harmless() {
    // Thousands of files, each read once: in memory where there is such a place.
    let memory = Path::new("/dev/shm");
    let place = if memory.is_dir() { memory.to_path_buf() } else { std::env::temp_dir() };
    let directory = tempfile::tempdir_in(place).unwrap();
    let mut command = Command::new("sh");
    // An absurd allocation fails rather than passes.
    command.args(["-c", "ulimit -v 8000000 && exec \"$@\"", "sh"]).arg(std::env::current_exe().unwrap());
    let out = command.args(["--exact", "child", "--nocapture"]).env(CHILD, directory.path()).output().unwrap();
    let note = read(&directory.path().join("note"));
    let said = String::from_utf8_lossy(&out.stderr).into_owned() + &String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success(), "{} at `{}`\n{said}", out.status, note.trim());
    for fusion in [FusionSet::All, FusionSet::None] {
        let text = read(&directory.path().join(format!("counts-{fusion}")));
        let counts: BTreeMap<String, usize> = serde_json::from_str(&text).unwrap();
        eprintln!("{fusion}: {counts:?}");
        assert!(counts["refused"] > 1000 && counts["ran"] > 100, "{counts:?}");
    }
    let peak: u64 = read(&directory.path().join("peak")).parse().unwrap();
    eprintln!("peak {peak} KiB");
    assert!(peak < MOST_KIB, "{peak} KiB touched");
}
