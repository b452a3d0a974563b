//! `precision`: what the activations are at each dot.
//!
//! With `--act f32` there is nothing to convert: dots read f32 and widen 16-bit weights exactly. Other modes would put casts
//! and quantisations before the dots here, so that they are shared and fused like any other arithmetic. The mode is said in
//! every report; options that are not there yet are refused where they are read ([`crate::options`]).

use crate::manager::{Context, PassError};
use crate::options::{Activations, CacheType};
use crate::report::Report;
use llamac_ir::Graph;

/// Runs the pass.
///
/// # Errors
/// None.
pub fn precision(_graph: &mut Graph, cx: &mut Context) -> Result<Report, PassError> {
    let mut report = Report::default();
    match (cx.options.act, cx.options.kv) {
        (Activations::F32, CacheType::F32) => {}
    }
    report.note(format!("act={} kv={}", cx.options.act, cx.options.kv));
    Ok(report)
}
