//! Rules on fusions and their regions.

use super::{Broken, Scope};
use crate::{FusionKind, Graph, Op};

pub(super) fn regions(scope: &Scope<'_>) -> Result<(), Broken> {
    if let Some((outer, _)) = scope.fusion {
        if !scope.graph.name.is_empty() {
            return Err(Broken::whole(format!("the region has the name {:?}, expected none", scope.graph.name)));
        }
        if scope.graph.bounds != outer.bounds {
            return Err(Broken::whole("the region's bounds differ from its graph's"));
        }
        let nested = |&&i: &&_| matches!(scope.graph.op(i), Op::Fusion(_));
        if let Some(&inst) = scope.graph.order().iter().find(nested) {
            return Err(Broken::at(inst, "a fusion stands in a region, expected primitives only"));
        }
    }
    for &inst in scope.graph.order() {
        let Op::Fusion(f) = scope.graph.op(inst) else { continue };
        let region = &f.region;
        let dots = count(region, |op| matches!(op, Op::Dot(_)));
        let writes = count(region, |op| matches!(op, Op::StateWrite));
        let fault = match f.kind {
            FusionKind::Rows if dots > 0 => Some(format!("`rows` holds {dots} dots, expected none")),
            FusionKind::Epilogue if dots != 1 => Some(format!("`epilogue` holds {dots} dots, expected 1")),
            FusionKind::Epilogue => {
                let other =
                    count(region, |op| matches!(op, Op::Reduce { .. } | Op::StateWrite | Op::Index | Op::Gather));
                (other > 0).then(|| "`epilogue` holds a reduce, gather, index or state.write, expected none".into())
            }
            FusionKind::Attention if dots != 2 => Some(format!("`attention` holds {dots} dots, expected 2")),
            FusionKind::Attention if writes > 0 => Some("`attention` writes a state, expected none".into()),
            _ => None,
        };
        if let Some(fault) = fault {
            return Err(Broken::at(inst, fault));
        }
        let results = region.outputs().len();
        if f.kind != FusionKind::Rows && results != 1 {
            return Err(Broken::at(inst, format!("`{}` has {results} results, expected 1", f.kind)));
        }
    }
    Ok(())
}

fn count(region: &Graph, which: impl Fn(&Op) -> bool) -> usize {
    region.order().iter().filter(|&&i| which(region.op(i))).count()
}
