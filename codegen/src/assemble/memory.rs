//! Where the values of a plan lie, as operands of a program.

use super::{Assembler, broken};
use crate::error::{CodegenError, Result};
use llamac_formats::program::Operand;
use llamac_formats::{Access, Extent};
use llamac_ir::access::access;
use llamac_ir::{ConstKind, Dim, Op, Type, Value};
use llamac_passes::plan::{EntryPlan, Storage};

impl Assembler {
    /// The memory of a value that lies somewhere by itself.
    pub(super) fn operand(&mut self, plan: &EntryPlan, value: Value, at: &str) -> Result<Operand> {
        let graph = &plan.graph;
        let nowhere = || CodegenError::NoStorage { at: at.to_owned(), value: format!("{value}: {}", graph.ty(value)) };
        Ok(match plan.storage.get(&value).ok_or_else(nowhere)? {
            Storage::Buffer(b) => Operand::Arena(plan.buffers[*b].offset),
            Storage::Output(o) => Operand::Output(*o),
            Storage::Weight(leaf) => Operand::Weight(self.weight(plan, *leaf, at)?),
            Storage::State(leaf) => Operand::State(self.state(plan, *leaf, at)?),
            Storage::Input(leaf) => match graph.def_op(*leaf) {
                Op::Input { name, .. } => {
                    let port = self.inputs.iter().position(|p| p.name == *name).ok_or_else(nowhere)?;
                    Operand::Input(port)
                }
                other => return Err(broken(at, format!("{leaf} is kept as an input, found `{}`", other.mnemonic()))),
            },
        })
    }

    /// The index of a weight or table.
    pub(super) fn weight(&mut self, plan: &EntryPlan, leaf: Value, at: &str) -> Result<usize> {
        let graph = &plan.graph;
        let index = match graph.def_op(leaf) {
            Op::Weight(recipe) => self.weights.add_weight(recipe.clone(), graph.ty(leaf).clone()),
            Op::Const(ConstKind::Rope { table, part }) => {
                let rows = graph.ty(leaf).dims.first().and_then(|d| d.as_const()).unwrap_or(0);
                self.weights.add_rope(table.clone(), *part, rows)
            }
            other => return Err(broken(at, format!("{leaf} is kept as a weight, found `{}`", other.mnemonic()))),
        };
        index.map_err(|e| broken(at, e))
    }

    /// The index of a state, by its leaf or any value that it was written into.
    pub(super) fn state(&mut self, plan: &EntryPlan, value: Value, at: &str) -> Result<usize> {
        let leaf = match plan.storage.get(&value) {
            Some(Storage::State(leaf)) => *leaf,
            _ => value,
        };
        match plan.graph.def_op(leaf) {
            Op::State { name } => {
                let index = self.states.iter().position(|s| s.name == *name);
                index.ok_or_else(|| broken(at, format!("there is no state {name:?}")))
            }
            other => Err(broken(at, format!("{value} is kept as a state, found `{}`", other.mnemonic()))),
        }
    }

    /// The access to a value through its views, to operands.
    pub(super) fn access(&mut self, plan: &EntryPlan, value: Value, at: &str) -> Result<Access<Operand>> {
        let found = access(&plan.graph, value).map_err(|e| broken(at, e))?;
        let base = self.operand(plan, found.base, at)?;
        let indices = found
            .indirects
            .iter()
            .map(|i| self.operand(plan, i.index, at))
            .collect::<Result<Vec<_>>>()?;
        let mut all = std::iter::once(base).chain(indices);
        // `map` visits the base first, then the indices in order.
        Ok(found.map(|_| all.next().unwrap_or(base)))
    }
}

/// An access over fewer axes: each group of axes (outermost first), which steps evenly, becomes one.
pub(super) fn grouped<B>(access: Access<B>, ty: &Type, groups: &[Vec<usize>]) -> Access<B> {
    let pick = |strides: &[Extent]| -> Vec<Extent> {
        let innermost = |axes: &Vec<usize>| axes.iter().rev().find(|&&a| ty.dims[a] != Dim::Const(1)).or(axes.last());
        groups.iter().map(|axes| innermost(axes).map_or(Extent::ZERO, |&a| strides[a])).collect()
    };
    let strides = pick(&access.strides);
    let mut access = access;
    access.strides = strides;
    for i in &mut access.indirects {
        i.strides = pick(&i.strides);
    }
    access
}

/// The number of elements of some axes together.
pub(super) fn extent_of(ty: &Type, axes: &[usize]) -> Extent {
    axes.iter().fold(Extent::ONE, |e, &a| e.times(ty.dims[a].extent()))
}
