//! A system that refuses the state of AMX tiles: every command that would use them says so.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

mod support;

use std::os::unix::process::CommandExt;
use std::process::Command;
use support::{bard, finished};

/// `llamac` under a filter of system calls that answers `arch_prctl(ARCH_REQ_XCOMP_PERM, …)` with EPERM.
fn refused(args: &[&str]) -> support::Run {
    const ARCH_REQ_XCOMP_PERM: u32 = 0x1023;
    const REFUSE: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
    let load = |at: u32| libc::sock_filter { code: 0x20, jt: 0, jf: 0, k: at };
    let unless = |k: u32, skip: u8| libc::sock_filter { code: 0x15, jt: 0, jf: skip, k };
    let answer = |k: u32| libc::sock_filter { code: 0x06, jt: 0, jf: 0, k };
    // The call's number lies at 0, its first argument at 16.
    let mut filter = [
        load(0),
        unless(libc::SYS_arch_prctl as u32, 3),
        load(16),
        unless(ARCH_REQ_XCOMP_PERM, 1),
        answer(REFUSE),
        answer(libc::SECCOMP_RET_ALLOW),
    ];
    let mut command = Command::new(env!("CARGO_BIN_EXE_llamac"));
    let install = move || {
        let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
        // SAFETY: both calls change the process that is about to become llamac, and nothing else; `program` and the filter
        // that it points to live while they are read.
        let done = unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
                && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program, 0, 0) == 0
        };
        if done { Ok(()) } else { Err(std::io::Error::last_os_error()) }
    };
    // SAFETY: between fork and exec it makes two system calls and allocates nothing.
    unsafe { command.pre_exec(install) };
    finished(&command.args(args).output().expect("it starts"))
}

#[test]
fn a_refusal_of_tiles_is_told_by_every_command_that_measures_or_runs() {
    let b = bard();
    let b = b.to_str().expect("a UTF-8 path");
    let has_tiles = llamac_runtime::Tier::Amx.available();
    for args in [
        &["machine", "--no-save", "-t", "1", "--format", "csv"][..],
        &["run", b, "--ids", "1", "-n", "1", "-t", "1"],
        &["bench", b, "-p", "4", "-n", "0", "-r", "1", "-t", "1"],
    ] {
        let run = refused(args);
        let told = run.stderr.lines().filter(|l| l.starts_with("warning: the system refuses the state of AMX tiles"));
        assert_eq!(told.count(), usize::from(has_tiles), "{args:?}: {}", run.stderr);
        run.ok();
    }
}
