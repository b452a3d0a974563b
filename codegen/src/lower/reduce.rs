//! Reductions: a sweep over the reduced axis with several accumulators, combined in a fixed order.

use super::affine::Affine;
use super::build::{Build, Kept};
use super::expand::{ElementOp, Key, Node};
use crate::error::{CodegenError, Result};
use crate::loops::{Carried, Expr, Index, Kind, LANES, Place, Reg, Ty};
use llamac_formats::{DType, Extent};
use llamac_ir::{BinaryOp, ReduceOp, Value};

/// A row that a sweep keeps in scratch for later sweeps.
#[derive(Clone, Debug)]
pub struct Keep {
    /// Where it goes.
    pub kept: Kept,
    /// What its elements are.
    pub kind: Kind,
}

/// One reduction of a sweep.
struct Reduction {
    op: BinaryOp,
    kind: Kind,
    axis: usize,
    operand: Value,
    index: Vec<Affine>,
    /// Accumulators in lanes.
    lanes: Vec<Reg>,
    /// The accumulator of the elements left over.
    tail: Option<Reg>,
}

impl Reduction {
    fn element(&self, at: Affine) -> Vec<Affine> {
        let mut index = self.index.clone();
        index.insert(self.axis, at);
        index
    }

    fn identity(&self) -> Expr {
        match (self.op, self.kind) {
            (BinaryOp::Add, Kind::F32) => Expr::F32(0),
            (_, Kind::F32) => Expr::F32(f32::NEG_INFINITY.to_bits()),
            (BinaryOp::Add, _) => Expr::I32(0),
            (..) => Expr::I32(i32::MIN),
        }
    }

    fn fold(&self) -> ReduceOp {
        if self.op == BinaryOp::Add { ReduceOp::Sum } else { ReduceOp::Max }
    }
}

/// One loop of a sweep: from where the previous one ended.
#[derive(Clone, Copy, Debug)]
pub struct Stage {
    /// First index, where it is known.
    pub begin: Option<u64>,
    /// End.
    pub end: Extent,
    /// Elements of an iteration.
    pub step: usize,
    /// How many times the body is written out.
    pub copies: usize,
    /// Whether the body works in lanes.
    pub lanes: bool,
}

/// The loops over `0..extent`: unrolled lanes, lanes, what is left.
pub fn stages(extent: Extent, unroll: usize) -> Vec<Stage> {
    let wide = LANES * unroll;
    let stage = |begin, end, step: usize, lanes| Stage {
        begin,
        end,
        step,
        copies: if lanes { step / LANES } else { 1 },
        lanes,
    };
    let Some(n) = extent.as_constant() else {
        let mut all = vec![stage(Some(0), extent, wide, true)];
        if unroll > 1 {
            all.push(stage(None, extent, LANES, true));
        }
        all.push(stage(None, extent, 1, false));
        return all;
    };
    let a = n / wide as u64 * wide as u64;
    let b = n / LANES as u64 * LANES as u64;
    let parts = [(0, a, wide, true), (a, b, LANES, true), (b, n, 1, false)];
    parts
        .into_iter()
        .filter(|(begin, end, ..)| begin < end)
        .map(|(begin, end, step, lanes)| stage(Some(begin), Extent::constant(end), step, lanes))
        .collect()
}

impl Build<'_> {
    /// Emits the reductions `keys`, which have equal extents and depend on the same loops, as one sweep, and remembers
    /// their results. Rows to keep are stored on the way and usable afterwards.
    pub fn reduce(&mut self, keys: &[Key], keep: &[Keep]) -> Result<()> {
        let depth = self.depth_of(&keys[0].1);
        let vector = self.uses_lane(&keys[0].1).is_some();
        let mut all = vec![];
        let mut extent = Extent::ONE;
        for key in keys {
            let Node::Reduce { op, axis, operand, index } = self.expand(key)? else {
                return Err(CodegenError::Plan(format!("{} is no reduction", key.0)));
            };
            let ty = self.closed.graph.ty(operand);
            extent = ty.dims[axis].extent();
            all.push(Reduction {
                op: if op == ReduceOp::Sum { BinaryOp::Add } else { BinaryOp::Max },
                kind: Kind::of(ty.dtype),
                axis,
                operand,
                index,
                lanes: vec![],
                tail: None,
            });
        }
        let aside = self.set_aside(depth);
        let lane = self.lane;
        if !vector {
            self.lane = None;
        }
        let result = self.sweep(&mut all, extent, vector, keep, depth);
        self.lane = lane;
        let results = result?;
        self.take_back(aside);
        for (key, reg) in keys.iter().zip(results) {
            self.remember(key.clone(), reg, depth);
        }
        self.kept.extend(keep.iter().map(|k| k.kept.clone()));
        Ok(())
    }

    fn sweep(
        &mut self,
        all: &mut [Reduction],
        extent: Extent,
        vector: bool,
        keep: &[Keep],
        depth: usize,
    ) -> Result<Vec<Reg>> {
        if extent == Extent::ONE && keep.is_empty() {
            return all.iter().map(|r| self.demand(r.operand, &r.element(Affine::default()))).collect();
        }
        let weight = {
            let var = self.var(extent);
            let roots: Vec<Key> = all.iter().map(|r| (r.operand, r.element(Affine::var(var)))).collect();
            self.weight(&roots)?
        };
        let unroll = match weight {
            0..=6 => 4,
            7..=16 => 2,
            _ => 1,
        };
        let pieces = {
            let roots: Vec<(Value, Vec<Affine>, usize)> =
                all.iter().map(|r| (r.operand, r.element(Affine::default()), r.axis)).collect();
            self.pieces(extent, &mut |at| {
                roots
                    .iter()
                    .map(|(v, index, axis)| {
                        let mut index = index.clone();
                        index[*axis] = at.clone();
                        (*v, index)
                    })
                    .collect()
            })?
        };
        for (low, len) in pieces {
            let list = if vector {
                vec![Stage { begin: Some(0), end: len, step: 1, copies: 1, lanes: false }]
            } else {
                stages(len, unroll)
            };
            let mut last = None;
            for stage in list {
                last = Some(self.stage(all, stage, low, len, last, vector, keep, depth)?);
            }
        }
        let mut results = vec![];
        for r in all.iter() {
            let op = ElementOp::Binary(r.op);
            let mut accs = r.lanes.clone();
            while accs.len() > 1 {
                let half = accs.len() / 2;
                accs = (0..half).map(|i| self.apply(op, vec![accs[2 * i], accs[2 * i + 1]], depth)).collect();
            }
            let folded = match accs.first() {
                Some(&acc) if !vector => Some(self.emit(depth, Ty::Element(r.kind, 1), Expr::Fold(r.fold(), acc))),
                other => other.copied(),
            };
            let total = match (folded, r.tail) {
                (Some(a), Some(b)) => self.apply(op, vec![a, b], depth),
                (Some(a), None) | (None, Some(a)) => a,
                (None, None) => self.emit(depth, Ty::Element(r.kind, 1), r.identity()),
            };
            results.push(total);
        }
        Ok(results)
    }

    /// One loop; returns where it ended.
    #[allow(clippy::too_many_arguments)]
    fn stage(
        &mut self,
        all: &mut [Reduction],
        stage: Stage,
        low: i64,
        len: Extent,
        previous: Option<Reg>,
        vector: bool,
        keep: &[Keep],
        depth: usize,
    ) -> Result<Reg> {
        let in_lanes = stage.lanes || vector;
        let width = if in_lanes { LANES } else { 1 };
        for r in all.iter_mut() {
            let wanted = if in_lanes { stage.copies.saturating_sub(r.lanes.len()) } else { 0 };
            if wanted > 0 || (!in_lanes && r.tail.is_none()) {
                let init = self.emit(depth, Ty::Element(r.kind, 1), r.identity());
                if in_lanes {
                    let init = self.splat(init);
                    r.lanes.extend(std::iter::repeat_n(init, wanted));
                } else {
                    r.tail = Some(init);
                }
            }
        }
        let var = self.open(len, stage.lanes);
        let inner = self.depth();
        let mut carried = vec![];
        for copy in 0..stage.copies {
            let at = Affine::var(var).offset(low + (copy * LANES) as i64);
            for r in all.iter() {
                let current = self.reg(Ty::Element(r.kind, width), inner);
                let x = self.demand_lanes(r.operand, &r.element(at.clone()))?;
                let next = self.apply(ElementOp::Binary(r.op), vec![x, current], inner);
                let init = if in_lanes { r.lanes.get(copy).copied() } else { r.tail };
                let result = self.reg(Ty::Element(r.kind, width), depth);
                carried.push(Carried { current, init: init.unwrap_or(current), next, result });
            }
            for k in keep {
                let Kept { key: (value, index), position, offset } = &k.kept;
                let mut index = index.clone();
                index[*position] = at.clone();
                let x = self.demand_lanes(*value, &index)?;
                self.store(Place::Scratch(*offset), kept_dtype(k.kind), &at, x)?;
            }
        }
        let count = all.len();
        for (i, c) in carried.iter().enumerate() {
            let r = i % count;
            if in_lanes {
                all[r].lanes[i / count] = c.result;
            } else {
                all[r].tail = Some(c.result);
            }
        }
        let begin = match (stage.begin, previous) {
            (Some(begin), _) => Index::constant(begin as i64),
            (None, Some(previous)) => Index::reg(previous),
            (None, None) => Index::default(),
        };
        Ok(self.close(var, begin, Index::extent(stage.end), stage.step, carried))
    }
}

/// What a kind is in scratch.
pub fn kept_dtype(kind: Kind) -> DType {
    match kind {
        Kind::F32 => DType::F32,
        Kind::I32 => DType::I32,
        Kind::Bool => DType::Bool,
    }
}
