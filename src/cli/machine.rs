//! `llamac machine`: what this machine can do.

use super::args::{MachineArgs, TableFormat};
use super::table::{Table, pretty, rounded};
use super::{Result, failure, output, say, setup};
use llamac::machine::{date, save, saved_path};
use llamac_runtime::Pool;
use llamac_runtime::limits::{Limits, Scope};
use serde_json::{Value, json};
use std::fmt::Write;
use std::process::ExitCode;
use std::sync::Arc;

/// Measures, prints and saves.
pub fn run(args: &MachineArgs) -> Result<ExitCode> {
    let most = setup::threads::count(args.threads)?;
    // What the system refuses is not measured, and said to be missing as where it would be used.
    setup::tier(None)?;
    let pools = counts(most).into_iter().map(|t| setup::pool(Some(t), false)).collect::<Result<Vec<Arc<Pool>>>>()?;
    let pools: Vec<&Pool> = pools.iter().map(|p| &**p).collect();
    let bar = super::progress::spinner();
    let limits = Limits::measure(&pools, Scope::All, &mut |what| bar.set_message(what.to_owned()));
    bar.finish_and_clear();
    let limits = limits?;
    output::print(&render(&limits, args.format))?;
    if args.no_save {
        return Ok(ExitCode::SUCCESS);
    }
    let path = match &args.output {
        Some(path) => path.clone(),
        None => saved_path().ok_or_else(|| {
            failure("neither XDG_CACHE_HOME nor HOME is set, so there is no place to save to: name one with -o, or --no-save")
        })?,
    };
    save(&path, &limits)?;
    say(format_args!("saved to {}", path.display()));
    Ok(ExitCode::SUCCESS)
}

/// 1, 2, 4, … and all.
fn counts(most: usize) -> Vec<usize> {
    let mut counts: Vec<usize> = std::iter::successors(Some(1), |n| Some(n * 2)).take_while(|&n| n < most).collect();
    counts.push(most);
    counts
}

fn render(limits: &Limits, format: TableFormat) -> String {
    match format {
        TableFormat::Json => format!("{}\n", pretty(&json!(limits))),
        TableFormat::Md => {
            let mut text =
                format!("{}, {} processors, measured {}\n", limits.processor, limits.processors, date(limits.measured));
            let caches =
                limits.caches.iter().map(|c| format!("L{} {} KiB (shared by {})", c.level, c.bytes >> 10, c.shared_by));
            let _ = writeln!(text, "\ncaches: {}", caches.collect::<Vec<_>>().join(", "));
            let _ = writeln!(text, "features: {}\n", limits.features.join(" "));
            text + &table(limits).render(format)
        }
        format => table(limits).render(format),
    }
}

/// One measurement a row.
fn table(limits: &Limits) -> Table {
    let mut table = Table::new(&["limit", "what", "threads", "value", "unit", "bytes"]);
    for b in &limits.bandwidth {
        table.row(vec![
            json!("read"),
            json!(b.level),
            json!(b.threads),
            rounded(b.gbs, 1),
            json!("GB/s"),
            json!(b.bytes),
        ]);
    }
    let none = || Value::Null;
    for p in &limits.peaks {
        let unit = json!(if p.arithmetic.starts_with("int") { "Gop/s" } else { "GFLOP/s" });
        table.row(vec![json!("compute"), json!(p.arithmetic), json!(p.threads), rounded(p.gops, 1), unit, none()]);
    }
    for b in &limits.barriers {
        table.row(vec![json!("meet"), json!("barrier"), json!(b.threads), rounded(b.nanos, 1), json!("ns"), none()]);
    }
    table
}

#[cfg(test)]
mod tests {
    #[test]
    fn thread_counts() {
        assert_eq!(super::counts(1), [1]);
        assert_eq!(super::counts(2), [1, 2]);
        assert_eq!(super::counts(6), [1, 2, 4, 6]);
    }
}
