//! Looking at what elements are made of without emitting anything: cost, places to split a sweep, reductions.

use super::affine::{Affine, Var};
use super::build::Build;
use super::expand::{Key, Node, resolve};
use crate::error::Result;
use llamac_formats::Extent;
use std::collections::HashSet;

/// A sweep is split into at most this many pieces; beyond, a concat chooses per element.
const MAX_PIECES: usize = 16;

impl Build<'_> {
    /// Calls `f` once with every element that `roots` are made of; goes on into its operands where `f` says so.
    pub fn visit(&mut self, roots: &[Key], f: &mut dyn FnMut(&mut Self, &Key, &Node) -> bool) -> Result<()> {
        let mut seen: HashSet<Key> = HashSet::new();
        let mut stack: Vec<Key> = roots.iter().rev().cloned().collect();
        while let Some(key) = stack.pop() {
            let key = resolve(self.closed, &self.ranges, &key);
            if !seen.insert(key.clone()) {
                continue;
            }
            let node = self.expand(&key)?;
            if !f(self, &key, &node) {
                continue;
            }
            match node {
                Node::Apply(_, args) => stack.extend(args.into_iter().rev()),
                Node::Choose { parts, .. } => stack.extend(parts.into_iter().map(|(_, key)| key).rev()),
                Node::Reduce { axis, operand, index, .. } => {
                    let var = self.sweep_var(self.closed.graph.ty(operand).dims[axis].extent(), &index);
                    stack.push((operand, inserted(&index, axis, var)));
                }
                Node::Load { .. } | Node::Splat(_) | Node::Int(_) | Node::Tile { .. } => {}
            }
        }
        Ok(())
    }

    /// How much one element costs, in operations; transcendental ones count more.
    pub fn weight(&mut self, roots: &[Key]) -> Result<usize> {
        let mut weight = 0;
        self.visit(roots, &mut |b, key, node| {
            if b.is_done(key) {
                return false;
            }
            if let Node::Apply(op, _) = node {
                weight += if op.is_heavy() { 8 } else { 1 };
            }
            true
        })?;
        Ok(weight)
    }

    /// Splits `0..extent` so that in each piece every concat reads one of its parts: starts and lengths.
    pub fn pieces(&mut self, extent: Extent, roots: &mut dyn FnMut(Affine) -> Vec<Key>) -> Result<Vec<(i64, Extent)>> {
        let Some(n) = extent.as_constant().and_then(|n| i64::try_from(n).ok()) else {
            return Ok(vec![(0, extent)]);
        };
        let mut open = vec![(0i64, n)];
        let mut done = vec![];
        while let Some((low, len)) = open.pop() {
            let var = self.var(Extent::constant(len as u64));
            let roots = roots(Affine::var(var).offset(low));
            let mut cuts: Vec<i64> = vec![];
            self.visit(&roots, &mut |_, _, node| {
                if let Node::Choose { at, parts } = node
                    && let Some((v, shift)) = at.as_shifted_var()
                    && v == var
                {
                    cuts.extend(parts.iter().map(|(end, _)| end - shift).filter(|c| *c > 0 && *c < len));
                }
                true
            })?;
            cuts.sort_unstable();
            cuts.dedup();
            if cuts.is_empty() {
                done.push((low, len));
            } else {
                let mut from = 0;
                for cut in cuts.into_iter().chain([len]) {
                    open.push((low + from, cut - from));
                    from = cut;
                }
            }
            if open.len() + done.len() > MAX_PIECES {
                return Ok(vec![(0, extent)]);
            }
        }
        done.sort_unstable();
        Ok(done.into_iter().map(|(low, len)| (low, Extent::constant(len as u64))).collect())
    }
}

/// The index with a variable put in at an axis.
pub fn inserted(index: &[Affine], axis: usize, var: Var) -> Vec<Affine> {
    let mut index = index.to_vec();
    index.insert(axis, Affine::var(var));
    index
}
