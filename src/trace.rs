//! What the threads did, as Perfetto and Chrome's tracing read it.

use llamac_formats::program::Program;
use llamac_runtime::ThreadTrace;
use serde_json::{Value, json};

/// One run of a phase.
pub struct Traced {
    /// `prefill`, `decode`: a process of the trace.
    pub phase: &'static str,
    /// Its threads.
    pub threads: Vec<ThreadTrace>,
}

/// The trace as JSON: a process for each phase, a track for each of its threads, an event for each step of the program and
/// each wait, microseconds.
pub fn chrome(program: &Program, phases: &[Traced]) -> Value {
    let mut events = vec![];
    for (process, phase) in phases.iter().enumerate() {
        let named = |what: &str, thread: usize, name: String| json!({ "ph": "M", "name": what, "pid": process, "tid": thread, "args": { "name": name } });
        events.push(named("process_name", 0, phase.phase.to_owned()));
        for (thread, trace) in phase.threads.iter().enumerate() {
            events.push(named("thread_name", thread, format!("thread {thread}")));
            for event in &trace.events {
                let entry = program.entries.get(event.entry);
                let step = event.step.and_then(|s| entry.and_then(|e| e.steps.get(s)));
                let (name, kind) = step.map_or(("waiting", "waiting"), |s| (s.name.as_str(), s.kind.as_str()));
                events.push(json!({
                    "ph": "X",
                    "name": name,
                    "cat": kind,
                    "pid": process,
                    "tid": thread,
                    "ts": event.begin as f64 / 1e3,
                    "dur": event.nanos as f64 / 1e3,
                }));
            }
        }
    }
    json!({ "displayTimeUnit": "ns", "traceEvents": events })
}
