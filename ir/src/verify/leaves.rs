//! Rules on leaves: names, recipes, tables.

use super::{Broken, Scope};
use crate::{ConstKind, Layout, Op, Recipe, Type};
use llamac_formats::rope::RopeScaling;
use std::collections::HashSet;

pub(super) fn leaves(scope: &Scope<'_>) -> Result<(), Broken> {
    let graph = scope.graph;
    let mut inputs = HashSet::new();
    let mut states = HashSet::new();
    for &inst in graph.order() {
        let op = graph.op(inst);
        let outside = matches!(op, Op::Input { .. } | Op::Weight(_) | Op::State { .. });
        if scope.fusion.is_some() && outside {
            let message = format!("`{}` stands in a region, expected it as an operand of the fusion", op.mnemonic());
            return Err(Broken::at(inst, message));
        }
        let fault = match op {
            Op::Param { .. } if scope.fusion.is_none() => Some("`param` stands outside of a region".to_owned()),
            Op::Input { limit: Some(0), .. } => Some("the limit is 0: no value could be in range".into()),
            Op::Input { name, .. } if !inputs.insert(name) => Some(format!("there is another input {name:?}")),
            Op::State { name } if !states.insert(name) => Some(format!("there is another state {name:?}")),
            _ => None,
        };
        if let Some(fault) = fault {
            return Err(Broken::at(inst, fault));
        }
    }
    Ok(())
}

pub(super) fn recipes(scope: &Scope<'_>) -> Result<(), Broken> {
    let graph = scope.graph;
    for &inst in graph.order() {
        if let Op::Weight(recipe) = graph.op(inst) {
            let ty = graph.ty(graph.result(inst));
            recipe_fits(recipe, ty).map_err(|message| Broken::at(inst, message))?;
        }
    }
    Ok(())
}

fn recipe_fits(recipe: &Recipe, ty: &Type) -> Result<(), String> {
    if let Recipe::InterleavePanels(parts) = recipe {
        let rows = ty.dims.first().and_then(|d| d.as_const()).unwrap_or(0);
        if ty.layout != Layout::Panels {
            return Err(format!("`interleave_panels` makes a weight in panels, found {ty}"));
        }
        if parts.is_empty() || !rows.is_multiple_of(parts.len()) {
            return Err(format!("`interleave_panels` joins {} equal parts, found {rows} rows", parts.len()));
        }
        let part = ty.with_dims(std::iter::once((rows / parts.len()).into()).chain(ty.dims[1..].iter().copied()));
        return parts.iter().try_for_each(|p| part_fits(p, &part, true));
    }
    part_fits(recipe, ty, true)
}

/// `whole` says whether the type is that of this recipe; of a part of a `concat` the number of rows is not known.
fn part_fits(recipe: &Recipe, ty: &Type, whole: bool) -> Result<(), String> {
    match recipe {
        Recipe::Tensor(_) => Ok(()),
        Recipe::PermuteRows { of, heads } => {
            let rows = ty.dims.first().and_then(|d| d.as_const()).unwrap_or(0);
            if *heads == 0 {
                return Err("`permute_rows` has 0 heads, expected at least 1".into());
            }
            if whole && (rows == 0 || !rows.is_multiple_of(2 * heads)) {
                return Err(format!(
                    "`permute_rows` needs an even number of rows per head, found {heads} heads in {ty}"
                ));
            }
            part_fits(of, ty, whole)
        }
        Recipe::Concat(parts) => {
            if parts.is_empty() || ty.dims.is_empty() {
                return Err(format!("`concat` joins at least one part along axis 0, found {} in {ty}", parts.len()));
            }
            parts.iter().try_for_each(|p| part_fits(p, ty, false))
        }
        Recipe::InterleavePanels(_) => Err("`interleave_panels` stands inside of a recipe, expected outermost".into()),
        Recipe::Convert(of) => part_fits(of, ty, whole),
    }
}

pub(super) fn rope(scope: &Scope<'_>) -> Result<(), Broken> {
    for &inst in scope.graph.order() {
        let Op::Const(ConstKind::Rope { table, .. }) = scope.graph.op(inst) else { continue };
        if table.head_dim == 0 || !table.head_dim.is_multiple_of(2) {
            return Err(Broken::at(inst, format!("head_dim is {}, expected an even number", table.head_dim)));
        }
        let numbers = match &table.scaling {
            RopeScaling::Default => vec![("theta", table.theta)],
            RopeScaling::Linear { factor } => vec![("theta", table.theta), ("factor", *factor)],
            RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position_embeddings } => {
                vec![
                    ("theta", table.theta),
                    ("factor", *factor),
                    ("low", *low_freq_factor),
                    ("high", *high_freq_factor),
                    ("original", *original_max_position_embeddings),
                ]
            }
            RopeScaling::Factors { factors } => {
                let (found, expected) = (factors.len(), table.frequencies());
                if found != expected {
                    return Err(Broken::at(
                        inst,
                        format!("there are {found} factors, expected {expected}, half of head_dim"),
                    ));
                }
                let each = factors.iter().map(|&factor| ("a factor", f64::from(factor)));
                each.chain([("theta", table.theta)]).collect()
            }
        };
        if let Some((name, value)) = numbers.into_iter().find(|(_, v)| !(v.is_finite() && *v > 0.0)) {
            return Err(Broken::at(inst, format!("{name} is {value}, expected a positive number")));
        }
    }
    Ok(())
}
