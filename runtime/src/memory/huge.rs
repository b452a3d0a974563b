//! Which pages the system has backed memory with. Huge ones are asked for when memory is reserved; whether they came is only
//! known once it has been written.

use super::Region;
use std::fmt;

/// Where a region lies, and on what pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Backing {
    /// The region's size, bytes.
    pub bytes: usize,
    /// Whether it is a part of a file that is mapped where it lies, on pages that other processes may share.
    pub mapped: bool,
    /// Bytes on huge pages; absent where the system does not tell.
    pub huge: Option<usize>,
}

impl Region {
    /// What backs it now.
    pub fn backing(&self) -> Backing {
        let huge = std::fs::read_to_string("/proc/self/smaps").ok();
        let start = self.address() as usize;
        let huge = huge.map(|smaps| huge_within(&smaps, start, start.saturating_add(self.len())));
        Backing { bytes: self.len(), mapped: self.is_file(), huge }
    }
}

impl fmt::Display for Backing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} MB", self.bytes as f64 / 1e6)?;
        if self.mapped {
            f.write_str(" mapped from the file")?;
        }
        match self.huge {
            Some(huge) => write!(f, ", {}% on huge pages", huge * 100 / self.bytes.max(1)),
            None => Ok(()),
        }
    }
}

/// What the system does when huge pages are asked for: `always`, `madvise` or `never`, where it tells.
pub fn policy() -> Option<String> {
    policy_in(&std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled").ok()?)
}

/// `always [madvise] never` → `madvise`.
fn policy_in(text: &str) -> Option<String> {
    let (_, rest) = text.split_once('[')?;
    Some(rest.split_once(']')?.0.to_owned())
}

/// Bytes on huge pages between two addresses, by the text of `/proc/self/smaps`; at most, because neighbouring mappings may
/// be shown as one.
fn huge_within(smaps: &str, start: usize, end: usize) -> usize {
    let (mut overlap, mut of_this, mut all) = (0, 0, 0);
    for line in smaps.lines() {
        if let Some((from, to)) = addresses(line) {
            all += of_this;
            overlap = to.min(end).saturating_sub(from.max(start));
            of_this = 0;
        } else if ["AnonHugePages:", "FilePmdMapped:", "ShmemPmdMapped:"].iter().any(|key| line.starts_with(key)) {
            let kilobytes = line.split_whitespace().nth(1).and_then(|n| n.parse::<usize>().ok()).unwrap_or(0);
            of_this = (of_this + kilobytes.saturating_mul(1024)).min(overlap);
        }
    }
    all + of_this
}

/// The addresses of a line that begins a mapping: `7f00-7fff rw-p …`.
fn addresses(line: &str) -> Option<(usize, usize)> {
    let (from, to) = line.split_once(' ')?.0.split_once('-')?;
    Some((usize::from_str_radix(from, 16).ok()?, usize::from_str_radix(to, 16).ok()?))
}

/// Memory that huge pages were asked for and less than half of which lies on such.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shortage {
    what: &'static str,
    backing: Backing,
    policy: Option<String>,
}

impl Shortage {
    /// From this size on it is worth a word, bytes: smaller regions are read from caches.
    const MATTERS: usize = 64 << 20;

    /// Where `what`, which has been written, got fewer huge pages than asked for.
    pub fn of(what: &'static str, region: &Region) -> Option<Shortage> {
        if region.len() < Shortage::MATTERS || region.is_file() {
            return None;
        }
        Shortage::judge(what, region.backing(), policy())
    }

    fn judge(what: &'static str, backing: Backing, policy: Option<String>) -> Option<Shortage> {
        let short = backing.bytes >= Shortage::MATTERS && !backing.mapped && backing.huge? < backing.bytes / 2;
        short.then_some(Shortage { what, backing, policy })
    }
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shortage { what, backing, policy } = self;
        let percent = backing.huge.unwrap_or(0) * 100 / backing.bytes.max(1);
        write!(
            f,
            "{what}: {percent}% of {:.1} MB lie on huge pages, so reading them is slower: ",
            backing.bytes as f64 / 1e6
        )?;
        match policy.as_deref() {
            Some("never") => {
                f.write_str("/sys/kernel/mm/transparent_hugepage/enabled says never, expected madvise or always")
            }
            Some(policy) => {
                write!(f, "the system had no more, though transparent_hugepage says {policy}: free some memory")
            }
            None => f.write_str("this system has no transparent huge pages"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMAPS: &str = "\
10000000-14000000 rw-p 00000000 00:00 0 \nSize:              65536 kB\nAnonHugePages:     40960 kB\nShmemPmdMapped:        0 kB\nFilePmdMapped:         0 kB\nVmFlags: rd wr mr mw me ac hg
14000000-15000000 r--s 00001000 fe:00 77    /tmp/a b.llamac\nAnonHugePages:         0 kB\nFilePmdMapped:      2048 kB
7f0000000000-7f0000001000 rw-p 00000000 00:00 0    [stack]\nAnonHugePages:         0 kB\n";

    #[test]
    fn pages_are_counted_where_they_lie() {
        let mb = |n: usize| n << 20;
        assert_eq!(huge_within(SMAPS, 0x1000_0000, 0x1400_0000), mb(40));
        assert_eq!(huge_within(SMAPS, 0x1400_0000, 0x1500_0000), mb(2), "of a file");
        assert_eq!(huge_within(SMAPS, 0x1000_0000, 0x1500_0000), mb(42));
        assert_eq!(huge_within(SMAPS, 0x1000_0000, 0x1020_0000), mb(2), "no more than there is of it");
        assert_eq!(huge_within(SMAPS, 0x2000_0000, 0x2100_0000), 0);
        assert_eq!(huge_within("", 0, usize::MAX), 0);
        assert_eq!(huge_within("AnonHugePages: x kB\n-\n- -\nAnonHugePages:", 0, usize::MAX), 0);
    }

    #[test]
    fn backings_in_words() {
        let backing = Backing { bytes: 4 << 20, mapped: false, huge: Some(3 << 20) };
        assert_eq!(backing.to_string(), "4.2 MB, 75% on huge pages");
        assert_eq!(Backing { mapped: true, ..backing }.to_string(), "4.2 MB mapped from the file, 75% on huge pages");
        assert_eq!(Backing { bytes: 0, mapped: false, huge: Some(0) }.to_string(), "0.0 MB, 0% on huge pages");
        assert_eq!(Backing { huge: None, ..backing }.to_string(), "4.2 MB");
    }

    #[test]
    fn policies() {
        assert_eq!(policy_in("always [madvise] never\n").as_deref(), Some("madvise"));
        assert_eq!(policy_in("always madvise [never]").as_deref(), Some("never"));
        assert_eq!((policy_in(""), policy_in("[")), (None, None));
    }

    #[test]
    fn a_shortage_is_told_with_its_reason() {
        let backing = |huge| Backing { bytes: 100 << 20, mapped: false, huge };
        let judge = |backing, policy: &str| Shortage::judge("the weights", backing, Some(policy.to_owned()));
        assert_eq!(judge(backing(Some(50 << 20)), "madvise"), None);
        assert_eq!(judge(backing(None), "never"), None, "nobody knows");
        assert_eq!(judge(Backing { mapped: true, ..backing(Some(0)) }, "never"), None, "not asked for");
        assert_eq!(judge(Backing { bytes: 1 << 20, ..backing(Some(0)) }, "never"), None, "too small to matter");
        assert_eq!(
            judge(backing(Some(0)), "never").unwrap().to_string(),
            "the weights: 0% of 104.9 MB lie on huge pages, so reading them is slower: \
             /sys/kernel/mm/transparent_hugepage/enabled says never, expected madvise or always"
        );
        let text = judge(backing(Some(49 << 20)), "madvise").unwrap().to_string();
        assert!(text.contains("49% of 104.9 MB") && text.contains("free some memory"), "{text}");
        let text = Shortage::judge("the weights", backing(Some(0)), None).unwrap().to_string();
        assert!(text.ends_with("this system has no transparent huge pages"), "{text}");
    }

    /// Memory that has been written lies on huge pages if the system gives them, and is none of a file's.
    #[test]
    fn own_memory_says_what_backs_it() {
        let mut region = Region::new(16 << 20, "a test").unwrap();
        region.as_mut_slice().fill(1);
        let backing = region.backing();
        assert_eq!((backing.bytes, backing.mapped), (16 << 20, false));
        match policy().as_deref() {
            Some("always" | "madvise") => {
                let huge = backing.huge.expect("a system with huge pages tells where they are");
                assert!((1..=16 << 20).contains(&huge), "{huge} bytes on huge pages, which were asked for");
            }
            policy => println!("skipped: huge pages are {} here", policy.unwrap_or("unknown")),
        }
        assert_eq!(Shortage::of("a test", &region), None, "too small to matter");
    }
}
