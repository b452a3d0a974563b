//! How much processor time the control groups of this process leave it (cgroup v2 `cpu.max`, v1 `cpu.cfs_quota_us`).

use std::path::{Path, PathBuf};

/// Processors' worth of time that the control groups allow, where one limits it: 1.5 is one and a half processors all
/// the time. The least of all groups that this process is in.
pub fn quota() -> Option<f64> {
    found(&|path| std::fs::read_to_string(path).ok())
}

/// The same in a system whose files `read` knows.
fn found(read: &dyn Fn(&Path) -> Option<String>) -> Option<f64> {
    let groups = read(Path::new("/proc/self/cgroup"))?;
    let mounts = read(Path::new("/proc/self/mountinfo"))?;
    let mut least: Option<f64> = None;
    for group in groups.lines().filter_map(Group::parse) {
        let Some(mount) = mounts.lines().filter_map(Mount::parse).find(|m| m.shows(&group)) else { continue };
        // A group has no more than the groups that it is in.
        for folder in mount.folder_of(group.path).ancestors().take_while(|f| f.starts_with(&mount.at)) {
            let file = |name: &str| read(&folder.join(name));
            let quota = match group.second {
                true => file("cpu.max").and_then(|text| of_max(&text)),
                false => file("cpu.cfs_quota_us").zip(file("cpu.cfs_period_us")).and_then(|(q, p)| of_cfs(&q, &p)),
            };
            least = least.into_iter().chain(quota).reduce(f64::min);
        }
    }
    least
}

/// `150000 100000` → 1.5; `max 100000` → nothing.
fn of_max(text: &str) -> Option<f64> {
    let mut words = text.split_whitespace();
    ratio(words.next()?, words.next()?)
}

/// `150000` and `100000` → 1.5; a quota of -1 is none.
fn of_cfs(quota: &str, period: &str) -> Option<f64> {
    ratio(quota.trim(), period.trim())
}

fn ratio(quota: &str, period: &str) -> Option<f64> {
    let (quota, period) = (quota.parse::<u64>().ok()?, period.parse::<u64>().ok()?);
    (quota > 0 && period > 0).then(|| quota as f64 / period as f64)
}

/// A line of `/proc/self/cgroup`: a group that has to do with processor time.
struct Group<'a> {
    /// Whether it is of the second version, whose one hierarchy has every controller.
    second: bool,
    path: &'a str,
}

impl<'a> Group<'a> {
    /// `0::/user.slice` or `4:cpu,cpuacct:/docker/ab`.
    fn parse(line: &'a str) -> Option<Group<'a>> {
        let mut fields = line.splitn(3, ':');
        let (id, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        let second = id == "0" && controllers.is_empty();
        (second || controllers.split(',').any(|c| c == "cpu")).then_some(Group { second, path })
    }
}

/// A line of `/proc/self/mountinfo`: where groups are shown.
struct Mount {
    /// The group at the mount point.
    root: PathBuf,
    at: PathBuf,
    kind: String,
    options: String,
}

impl Mount {
    /// `30 23 0:26 / /sys/fs/cgroup/cpu rw,relatime shared:9 - cgroup cgroup rw,cpu`.
    fn parse(line: &str) -> Option<Mount> {
        let (place, what) = line.split_once(" - ")?;
        let mut place = place.split(' ').skip(3);
        let mut what = what.split(' ');
        let (root, at) = (unescaped(place.next()?), unescaped(place.next()?));
        Some(Mount { root, at, kind: what.next()?.to_owned(), options: what.nth(1).unwrap_or("").to_owned() })
    }

    fn shows(&self, group: &Group<'_>) -> bool {
        match group.second {
            true => self.kind == "cgroup2",
            false => self.kind == "cgroup" && self.options.split(',').any(|o| o == "cpu"),
        }
    }

    /// The folder of a group; the mount point for one that is not below what is mounted, as in a container that is told of
    /// groups outside.
    fn folder_of(&self, group: &str) -> PathBuf {
        let below = Path::new(group).strip_prefix(&self.root).ok();
        let inside = below.filter(|b| b.components().all(|c| matches!(c, std::path::Component::Normal(_))));
        self.at.join(inside.unwrap_or(Path::new("")))
    }
}

/// Spaces, tabs, line ends and backslashes stand as `\040` and so on.
fn unescaped(text: &str) -> PathBuf {
    let plain = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    plain.iter().fold(text.to_owned(), |text, (code, character)| text.replace(code, character)).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A system of these files.
    fn of(files: &[(&str, &str)]) -> Option<f64> {
        found(&|path| files.iter().find(|(name, _)| Path::new(name) == path).map(|(_, text)| (*text).to_owned()))
    }

    const SECOND: &str = "25 21 0:22 / /sys rw - sysfs sysfs rw\n30 25 0:26 / /sys/fs/cgroup rw,relatime shared:9 - cgroup2 cgroup2 rw\n";
    const FIRST: &str = "31 25 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
                         32 25 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";

    #[test]
    fn texts() {
        assert_eq!(of_max("150000 100000\n"), Some(1.5));
        assert_eq!(of_max("max 100000\n"), None);
        assert_eq!(
            (of_max(""), of_max("5"), of_max("0 100000"), of_max("1 0"), of_max("-1 5")),
            (None, None, None, None, None)
        );
        assert_eq!(of_cfs("50000\n", "100000\n"), Some(0.5));
        assert_eq!(of_cfs("-1\n", "100000\n"), None);
    }

    #[test]
    fn the_second_version_with_the_least_of_all_groups_above() {
        let group = ("/proc/self/cgroup", "0::/user.slice/a b\n");
        let mounts = ("/proc/self/mountinfo", SECOND);
        let own = ("/sys/fs/cgroup/user.slice/a b/cpu.max", "400000 100000");
        assert_eq!(of(&[group, mounts]), None);
        assert_eq!(of(&[group, mounts, own]), Some(4.0));
        let above = ("/sys/fs/cgroup/user.slice/cpu.max", "250000 100000");
        assert_eq!(of(&[group, mounts, own, above]), Some(2.5));
        let unlimited = ("/sys/fs/cgroup/user.slice/cpu.max", "max 100000");
        assert_eq!(of(&[group, mounts, own, unlimited]), Some(4.0));
        // Not a group.
        let outside = ("/sys/fs/cpu.max", "1 100000");
        assert_eq!(of(&[group, mounts, own, outside]), Some(4.0));
    }

    #[test]
    fn the_first_version_and_both_at_once() {
        let group = ("/proc/self/cgroup", "9:memory:/m\n4:cpu,cpuacct:/docker/ab\n0::/\n");
        let both = [SECOND, FIRST].concat();
        let mounts = ("/proc/self/mountinfo", &*both);
        let at = "/sys/fs/cgroup/cpu,cpuacct/docker/ab";
        let (quota, period) = (format!("{at}/cpu.cfs_quota_us"), format!("{at}/cpu.cfs_period_us"));
        let files = [group, mounts, (&*quota, "300000\n"), (&*period, "100000\n")];
        assert_eq!(of(&files), Some(3.0));
        let second = ("/sys/fs/cgroup/cpu.max", "200000 100000");
        assert_eq!(of(&[&files[..], &[second]].concat()), Some(2.0));
    }

    #[test]
    fn a_container_sees_its_group_at_the_mount_point() {
        let mounts = "30 25 0:26 /docker/ab /sys/fs/cgroup\\040x rw - cgroup2 cgroup2 rw";
        for group in ["0::/docker/ab", "0::/", "0::/../../outside", "0::/elsewhere"] {
            let limit = ("/sys/fs/cgroup x/cpu.max", "100000 100000");
            let files = [("/proc/self/cgroup", group), ("/proc/self/mountinfo", mounts), limit];
            assert_eq!(of(&files), Some(1.0), "{group}");
        }
    }

    #[test]
    fn what_is_no_such_file_limits_nothing() {
        assert_eq!(of(&[]), None);
        for text in ["", "\n", "::", "0", "x - y", "0::/\n- - -"] {
            assert_eq!(of(&[("/proc/self/cgroup", text), ("/proc/self/mountinfo", text)]), None, "{text:?}");
            assert_eq!(of(&[("/proc/self/cgroup", "0::/"), ("/proc/self/mountinfo", text)]), None, "{text:?}");
        }
    }
}
