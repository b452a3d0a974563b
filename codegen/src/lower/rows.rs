//! Row kernels: which axes are rows, which sweeps a row takes, what is stored in the last of them.

use super::Lowered;
use super::affine::{Affine, Var};
use super::analyse::inserted;
use super::blocks::{Finished, in_memory};
use super::build::{Build, Kept, Operand};
use super::expand::{Key, Node, extents, fetch, resolve};
use super::inner::{Axis, Inner, prefix_index};
use super::reach::reach;
use super::reduce::{Keep, one_by_one, stages};
use super::region::Closed;
use crate::error::{CodegenError, Result};
use crate::loops::{Count, Expr, Index, Kernel, Kind, LANES, Line, Place, Reg, Space, Stretch, Ty};
use llamac_formats::program::Routine;
use llamac_formats::{DType, Extent, Over, q8};
use llamac_ir::{Op, Type, Value};
use std::collections::HashSet;

/// How often the body of a sweep is written out for the parts of concats, at most.
const MOST_BODIES: usize = 32;

/// A result of the step, as elements to store.
struct Sink {
    /// Which result.
    result: usize,
    /// The elements.
    value: Value,
    /// Their axes.
    dims: Vec<Extent>,
    /// The type of the memory.
    ty: Type,
    /// Slots and positions, where the result is a written state.
    write: Option<(Value, Value)>,
    /// Where a row is finished, where the result is stored in blocks.
    finished: Option<Finished>,
}

impl Sink {
    fn in_blocks(&self) -> bool {
        self.ty.dtype == DType::Q8
    }
}

/// Lowers a region without a dot to a row kernel.
///
/// # Errors
/// If the region holds what no row kernel does.
pub fn lower_rows(closed: &Closed) -> Result<Lowered> {
    let mut sinks = sinks(closed)?;
    let mut b = Build::new(closed);
    let space = row_space(&mut b, &sinks)?;
    let row = b.reg(Ty::Index, 0);
    let (prefix, count) = decompose(&mut b, row, &sinks[0].dims, &space)?;
    let groups = group(&sinks, space.rank);
    let scratch = reductions(&mut b, &sinks, &groups, &prefix)?;
    let scratch = finish_blocks(&mut b, &mut sinks, &prefix, &space, scratch)?;
    let mut work = 0usize;
    for members in &groups {
        let inner = store(&mut b, &sinks, members, &prefix, space.block)?;
        work = work.saturating_add(inner);
    }
    let (body, buffers, tys) = b.finish();
    let (operands, buffers): (Vec<_>, Vec<_>) = buffers.into_iter().unzip();
    let mut kernel = Kernel { buffers, syms: vec![], scratch, space: Space::Rows { row }, body, tys };
    kernel.collect_syms();
    let reach = reach(closed, &kernel, &operands, Over::Rows(count))?;
    Ok(Lowered { kernel, operands, reach, count, work })
}

fn sinks(closed: &Closed) -> Result<Vec<Sink>> {
    let g = &closed.graph;
    let mut sinks = vec![];
    for (result, (_, output)) in g.outputs().iter().enumerate() {
        let inst = g.def(*output);
        let (value, write) = match (g.op(inst), g.operands(inst)) {
            (Op::StateWrite, &[_, rows, slots, positions]) => (rows, Some((slots, positions))),
            _ => (*output, None),
        };
        sinks.push(Sink {
            result,
            value,
            dims: extents(g.ty(value)),
            ty: g.ty(*output).clone(),
            write,
            finished: None,
        });
    }
    if sinks.is_empty() {
        return Err(CodegenError::Region { at: closed.at.clone(), what: "a kernel without results".into() });
    }
    Ok(sinks)
}

/// The row space: how many leading axes of the results are rows, and whether the last axis is cut in blocks besides.
struct RowSpace {
    rank: usize,
    block: Option<u64>,
}

/// Rank without trailing axes of extent 1.
fn effective_rank(dims: &[Extent]) -> usize {
    dims.iter().rposition(|d| *d != Extent::ONE).map_or(0, |i| i + 1)
}

/// The longest common prefix of axes such that a row computes its own reductions and no others, and every concat joins
/// elements within a row.
fn row_space(b: &mut Build<'_>, sinks: &[Sink]) -> Result<RowSpace> {
    let first = &sinks[0].dims;
    let mut rank = first.len();
    for s in sinks {
        rank = rank.min(s.dims.iter().zip(first).take_while(|(a, b)| a == b).count());
    }
    let axes: Vec<Var> = first[..rank].iter().map(|&d| b.var(d)).collect();
    let (mut reduces, mut chooses) = (false, false);
    for s in sinks {
        let mut index: Vec<Affine> = axes.iter().map(|&v| Affine::var(v)).collect();
        for &d in &s.dims[rank..] {
            index.push(Affine::var(b.var(d)));
        }
        let mut limit = rank;
        b.visit(&[(s.value, index)], &mut |b, _, node| {
            match node {
                Node::Reduce { axis, operand, index, .. } => {
                    reduces = true;
                    let own = axes.iter().rposition(|&v| index.iter().any(|i| i.uses(v))).map_or(0, |i| i + 1);
                    limit = limit.min(own);
                    if axis + 1 != b.closed.graph.ty(*operand).rank()
                        && let Some(last) = index.last()
                        && let Some(lane) = axes.iter().rposition(|&v| last.uses(v))
                    {
                        limit = limit.min(lane);
                    }
                }
                Node::Choose { at, .. } => {
                    chooses = true;
                    if let Some(joined) = axes.iter().position(|&v| at.uses(v)) {
                        limit = limit.min(joined);
                    }
                }
                _ => {}
            }
            true
        })?;
        rank = rank.min(limit);
    }
    // Blocks are made of finished stretches of a row.
    if let Some(least) = sinks.iter().filter(|s| s.in_blocks()).map(|s| s.dims.len().saturating_sub(1)).min() {
        rank = rank.min(least);
    }
    let longest = sinks.iter().map(|s| effective_rank(&s.dims)).max().unwrap_or(0);
    if !reduces {
        rank = rank.min(longest.saturating_sub(1));
    }
    // Long rows of independent elements are cut, so that one row of a decode step is shared by all threads.
    let alike = sinks.iter().all(|s| s.dims == *first);
    let block = match first.last().and_then(|d| d.as_constant()) {
        Some(n) if alike && !reduces && !chooses && longest == first.len() && rank + 1 == longest && n >= 1024 => {
            let unit = if sinks.iter().any(Sink::in_blocks) { q8::ELEMENTS as u64 } else { 16 };
            (256 / unit..=1024 / unit).rev().map(|k| k * unit).find(|k| n % k == 0)
        }
        _ => None,
    };
    Ok(RowSpace { rank, block })
}

/// Decides where the rows of each result in blocks are finished: where they lie already, or in scratch behind the first `scratch` bytes.
/// Returns the bytes of all scratch.
fn finish_blocks(
    b: &mut Build<'_>,
    sinks: &mut [Sink],
    prefix: &[Axis],
    space: &RowSpace,
    scratch: usize,
) -> Result<usize> {
    let mut end = scratch;
    for sink in sinks.iter_mut().filter(|s| s.in_blocks()) {
        let elements = stretch(&sink.dims, space).ok_or_else(|| CodegenError::Region {
            at: b.closed.at.clone(),
            what: format!("blocks are made of stretches of a known length, found rows of {}", sink.ty),
        })?;
        let inner = Inner::new(&sink.dims, prefix, space.block);
        let (mut index, mut vars) = (vec![], vec![]);
        for (&len, step) in inner.lens.iter().zip(inner.steps()) {
            let var = (len != Extent::ONE).then(|| b.var(len));
            index.push(var.map_or_else(Affine::default, Affine::var));
            vars.extend(var.map(|var| (var, step)));
        }
        sink.finished = match in_memory(b, sink.value, inner.index(&index), &vars)? {
            None => {
                let from = end;
                end = end.saturating_add(elements.saturating_mul(4).next_multiple_of(64));
                Some(Finished::Scratch(from))
            }
            found => found,
        };
    }
    Ok(end)
}

/// Elements that a row of the kernel stores of a result with these axes, if that is a constant.
fn stretch(dims: &[Extent], space: &RowSpace) -> Option<usize> {
    let constant = |d: &Extent| d.as_constant().and_then(|d| usize::try_from(d).ok());
    match space.block {
        Some(block) => usize::try_from(block).ok(),
        None => dims[space.rank..].iter().try_fold(1usize, |n, d| n.checked_mul(constant(d)?)),
    }
}

/// Splits the flattened row into its axes.
fn decompose(b: &mut Build<'_>, row: Reg, dims: &[Extent], space: &RowSpace) -> Result<(Vec<Axis>, Extent)> {
    let mut sizes: Vec<Extent> = dims[..space.rank].to_vec();
    if let (Some(block), Some(n)) = (space.block, dims.last().and_then(|d| d.as_constant())) {
        sizes.push(Extent::constant(n / block));
    }
    let count = sizes.iter().fold(Extent::ONE, |a, &e| a.times(e));
    let mut axes = vec![Axis::Unit; sizes.len()];
    let mut rest = row;
    // The first axis has its variable even where it is 1: a kernel of one row is that of many.
    let mut left = sizes.iter().skip(1).filter(|e| **e != Extent::ONE).count() + 1;
    for (i, (axis, &size)) in axes.iter_mut().zip(&sizes).enumerate().rev() {
        if size == Extent::ONE && i > 0 {
            continue;
        }
        left -= 1;
        let reg = if left == 0 {
            rest
        } else {
            let reg = b.emit(0, Ty::Index, Expr::Remainder(Index::reg(rest), size));
            rest = b.emit(0, Ty::Index, Expr::Quotient(Index::reg(rest), size));
            reg
        };
        let var = b.var(size);
        b.bind(var, reg);
        *axis = Axis::Row(Affine::var(var));
    }
    Ok((axes, count))
}

/// Sinks with equal axes past the row space share their sweep.
fn group(sinks: &[Sink], rank: usize) -> Vec<Vec<usize>> {
    let mut groups: Vec<Vec<usize>> = vec![];
    for (i, s) in sinks.iter().enumerate() {
        match groups.iter_mut().find(|g| sinks[g[0]].dims[rank..] == s.dims[rank..]) {
            Some(g) => g.push(i),
            None => groups.push(vec![i]),
        }
    }
    groups
}

/// A sweep over a row, for analysis.
struct Sweep {
    extent: Extent,
    roots: Vec<Key>,
    reductions: Vec<Key>,
    level: usize,
}

/// Emits the reductions that belong to the row, those of one level and extent in one sweep; returns the scratch bytes of
/// rows kept for later sweeps.
fn reductions(b: &mut Build<'_>, sinks: &[Sink], groups: &[Vec<usize>], prefix: &[Axis]) -> Result<usize> {
    let rank = sinks[0].dims.len().min(prefix.len());
    let rank = groups.iter().flatten().fold(rank, |r, &i| r.min(sinks[i].dims.len()));
    let mut roots: Vec<Key> = vec![];
    for s in sinks {
        let mut index = prefix_index(prefix, rank);
        let inner = &s.dims[rank..];
        let wide = inner.iter().filter(|d| **d != Extent::ONE).count();
        for &d in inner {
            index.push(if d == Extent::ONE {
                Affine::default()
            } else if wide == 1 {
                Affine::var(b.sweep_var(d, &[]))
            } else {
                Affine::var(b.var(d))
            });
        }
        roots.push((s.value, index));
    }
    let mut sweeps: Vec<Sweep> = vec![];
    levels(b, &roots, &mut sweeps)?;
    sweeps.sort_by_key(|s| s.level);
    // A row of heavy elements that a later sweep needs again is kept.
    let mut keeps: Vec<Vec<Keep>> = sweeps.iter().map(|_| vec![]).collect();
    let mut bytes = 0usize;
    for later in 1..=sweeps.len() {
        let needs = if later < sweeps.len() { sweeps[later].roots.clone() } else { roots.clone() };
        let candidates = candidates(b, &sweeps[..later])?;
        let mut wanted: Vec<(usize, Kept)> = vec![];
        b.visit(&needs, &mut |b, key, node| {
            if matches!(node, Node::Reduce { index, .. } if b.is_row_level(index)) {
                return false;
            }
            match candidates.iter().find(|(_, kept)| kept.matches(key)) {
                Some(hit) => {
                    wanted.push(hit.clone());
                    false
                }
                None => true,
            }
        })?;
        for (at, mut kept) in wanted {
            if keeps[at].iter().any(|k| k.kept.key == kept.key) {
                continue;
            }
            kept.offset = bytes;
            let n = sweeps[at].extent.value(&b.ranges.bounds.sizes());
            bytes = bytes.saturating_add(n.saturating_mul(4).next_multiple_of(64));
            let kind = Kind::of(b.closed.graph.ty(kept.key.0).dtype);
            keeps[at].push(Keep { kept, kind });
        }
    }
    for (sweep, keep) in sweeps.iter().zip(&keeps) {
        b.reduce(&sweep.reductions, keep)?;
    }
    Ok(bytes)
}

/// Elements of earlier sweeps that are worth keeping.
fn candidates(b: &mut Build<'_>, sweeps: &[Sweep]) -> Result<Vec<(usize, Kept)>> {
    let mut found = vec![];
    for (at, sweep) in sweeps.iter().enumerate() {
        let var = b.sweep_var(sweep.extent, &[]);
        let mut applied: Vec<(Key, bool, Vec<Key>)> = vec![];
        b.visit(&sweep.roots, &mut |b, key, node| {
            if let Node::Apply(op, args) = node {
                let args = args.iter().map(|a| resolve(b.closed, &b.ranges, a)).collect();
                applied.push((key.clone(), op.is_heavy(), args));
            }
            !matches!(node, Node::Reduce { index, .. } if b.is_row_level(index))
        })?;
        // An element made of a heavy one is heavy. Operands come before what they make.
        applied.sort_by_key(|(key, ..)| key.0);
        let mut heavy_ones: HashSet<Key> = HashSet::new();
        for (key, own, args) in applied {
            let heavy = own || args.iter().any(|a| heavy_ones.contains(a));
            if heavy {
                heavy_ones.insert(key.clone());
            }
            let row = Affine::var(var);
            let along: Vec<usize> = (0..key.1.len()).filter(|&i| key.1[i].uses(var)).collect();
            if let (true, &[position]) = (heavy, along.as_slice())
                && key.1[position] == row
                && b.closed.graph.ty(key.0).dims[position].extent() == sweep.extent
            {
                found.push((at, Kept { key, position, offset: 0 }));
            }
        }
    }
    Ok(found)
}

/// Collects the row's reductions that `roots` need; returns one more than their highest level.
fn levels(b: &mut Build<'_>, roots: &[Key], sweeps: &mut Vec<Sweep>) -> Result<usize> {
    b.enter()?;
    let mut needed: Vec<(Key, Vec<Affine>, usize, Value)> = vec![];
    b.visit(roots, &mut |b, key, node| match node {
        Node::Reduce { axis, operand, index, .. } if b.is_row_level(index) => {
            needed.push((key.clone(), index.clone(), *axis, *operand));
            false
        }
        _ => true,
    })?;
    let mut next = 0;
    for (key, index, axis, operand) in needed {
        if let Some(known) = sweeps.iter().find(|s| s.reductions.contains(&key)) {
            next = next.max(known.level + 1);
            continue;
        }
        let extent = b.closed.graph.ty(operand).dims[axis].extent();
        let var = b.sweep_var(extent, &[]);
        let root = (operand, inserted(&index, axis, var));
        let level = levels(b, std::slice::from_ref(&root), sweeps)?;
        next = next.max(level + 1);
        match sweeps.iter_mut().find(|s| s.level == level && s.extent == extent) {
            Some(s) => {
                s.roots.push(root);
                s.reductions.push(key);
            }
            None => sweeps.push(Sweep { extent, roots: vec![root], reductions: vec![key], level }),
        }
    }
    b.leave();
    Ok(next)
}

/// The part of a sweep that one joint body covers: per inner axis where it starts and how long it is.
type Piece = Vec<(i64, Extent)>;

/// Emits the sweep that stores the results `members`; returns the elements of a row at the bounds.
fn store(b: &mut Build<'_>, sinks: &[Sink], members: &[usize], prefix: &[Axis], block: Option<u64>) -> Result<usize> {
    let rank = prefix.len() - usize::from(block.is_some());
    let inner = Inner::new(&sinks[members[0]].dims, prefix, block);
    let (dims, lens) = (&inner.dims, &inner.lens);
    let index_of = |at: &[Affine]| inner.index(at);
    let wide: Vec<usize> = (0..dims.len()).filter(|&i| dims[i] != Extent::ONE).collect();
    // What lies finished in memory needs no sweep.
    let swept: Vec<usize> =
        members.iter().copied().filter(|&m| !matches!(sinks[m].finished, Some(Finished::Param(..)))).collect();
    let Some(&innermost) = wide.last() else {
        let index = index_of(&vec![Affine::default(); dims.len()]);
        store_elements(b, sinks, &swept, &[At { index, within: Affine::default() }])?;
        return Ok(1);
    };
    let mut axes: Vec<Vec<(i64, Extent)>> = vec![vec![(0, Extent::ONE)]; dims.len()];
    let mut bodies = 1;
    for &axis in wide.iter().rev() {
        let others: Vec<Affine> = (0..dims.len())
            .map(|i| if dims[i] == Extent::ONE { Affine::default() } else { Affine::var(b.var(lens[i])) })
            .collect();
        axes[axis] = b.pieces(lens[axis], &mut |at| {
            let mut inner = others.clone();
            inner[axis] = at;
            let index = index_of(&inner);
            swept.iter().map(|&m| (sinks[m].value, index.clone())).collect()
        })?;
        // Every combination of pieces is a body of its own.
        bodies *= axes[axis].len();
        if bodies > MOST_BODIES {
            bodies /= axes[axis].len();
            axes[axis] = vec![(0, lens[axis])];
        }
    }
    // Where an element lies among those that the row stores.
    let steps = inner.steps();
    for (shape, pieces) in if swept.is_empty() { vec![] } else { joint(&axes) } {
        let mut vars: Vec<Option<Var>> = vec![None; dims.len()];
        for &axis in &wide[..wide.len() - 1] {
            vars[axis] = Some(b.open(shape[axis], false));
        }
        let element = |vars: &[Option<Var>], piece: &Piece, step: i64| -> At {
            let mut inner: Vec<Affine> = vec![Affine::default(); dims.len()];
            for (i, (low, _)) in piece.iter().enumerate() {
                let var = vars[i].map_or_else(Affine::default, Affine::var);
                inner[i] = var.offset(*low + if i == innermost { step } else { 0 });
            }
            At { within: Affine::linear(&inner, &steps), index: index_of(&inner) }
        };
        let unroll = {
            let probe = b.var(shape[innermost]);
            let mut with = vars.clone();
            with[innermost] = Some(probe);
            let roots: Vec<Key> = pieces
                .iter()
                .flat_map(|p| swept.iter().map(|&m| (sinks[m].value, element(&with, p, 0).index)).collect::<Vec<_>>())
                .collect();
            if b.weight(&roots)? <= 4 && pieces.len() == 1 { 2 } else { 1 }
        };
        let mut last: Option<Reg> = None;
        // Four elements of a state lie together only along its last axis; its rows lie where slots and positions say.
        let scattered = rank + innermost != 2 && swept.iter().any(|&m| sinks[m].write.is_some());
        let stages = if scattered { one_by_one(shape[innermost]) } else { stages(shape[innermost], unroll) };
        for stage in stages {
            let var = b.open(shape[innermost], stage.lanes);
            let mut with = vars.clone();
            with[innermost] = Some(var);
            for copy in 0..stage.copies {
                let indices: Vec<At> = pieces.iter().map(|p| element(&with, p, (copy * LANES) as i64)).collect();
                store_elements(b, sinks, &swept, &indices)?;
            }
            let begin = match (stage.begin, last) {
                (Some(begin), _) => Index::constant(begin as i64),
                (None, Some(last)) => Index::reg(last),
                (None, None) => Index::default(),
            };
            last = Some(b.close(var, begin, Index::extent(stage.end), stage.step, vec![]));
        }
        for &axis in wide[..wide.len() - 1].iter().rev() {
            if let Some(var) = vars[axis] {
                b.close(var, Index::default(), Index::extent(shape[axis]), 1, vec![]);
            }
        }
    }
    for sink in members.iter().map(|&m| &sinks[m]) {
        if let Some(finished) = &sink.finished {
            let count = lens.iter().filter_map(|d| d.as_constant()).product::<u64>() as usize;
            // Heads of a row lie apart in a state.
            let apart = match (sink.write, &dims[..]) {
                (Some(_), [.., heads, _]) => heads.as_constant().unwrap_or(1) as usize,
                _ => 1,
            };
            for head in 0..apart {
                let mut inner = vec![Affine::default(); dims.len()];
                if apart > 1 {
                    inner[dims.len() - 2] = Affine::default().offset(head as i64);
                }
                let at = stored_at(b, sink, &index_of(&inner));
                let place = b.buffer(Operand::Result(sink.result), sink.ty.dtype, true);
                let elements = count / apart;
                let at = b.index(&at)?;
                let from = finished.line(b, head * elements)?;
                b.stretch(Stretch {
                    routine: Routine::QuantizeQ8,
                    to: Line::Memory(place, at),
                    from: vec![from],
                    count: Count::Elements(elements),
                });
            }
        }
    }
    let sizes = b.ranges.bounds.sizes();
    Ok(lens.iter().fold(1usize, |n, e| n.saturating_mul(e.value(&sizes))))
}

/// Pieces of equal shape run in one loop.
fn joint(axes: &[Vec<(i64, Extent)>]) -> Vec<(Vec<Extent>, Vec<Piece>)> {
    let mut all: Vec<Piece> = vec![vec![]];
    for axis in axes {
        all = all
            .into_iter()
            .flat_map(|p| {
                axis.iter().map(move |&part| {
                    let mut p = p.clone();
                    p.push(part);
                    p
                })
            })
            .collect();
    }
    let mut groups: Vec<(Vec<Extent>, Vec<Piece>)> = vec![];
    for piece in all {
        let shape: Vec<Extent> = piece.iter().map(|(_, len)| *len).collect();
        match groups.iter_mut().find(|(s, _)| *s == shape) {
            Some((_, pieces)) => pieces.push(piece),
            None => groups.push((shape, vec![piece])),
        }
    }
    groups
}

/// Where an element of a result is stored.
fn stored_at(b: &Build<'_>, sink: &Sink, index: &[Affine]) -> Affine {
    let at = match sink.write {
        None => index.to_vec(),
        Some((slots, positions)) => {
            let size = |axis: usize| sink.ty.dims[axis].as_const().unwrap_or(usize::MAX);
            let slot = fetch(b.closed, &b.ranges, slots, index[0].clone(), size(0));
            let position = fetch(b.closed, &b.ranges, positions, index[0].clone(), size(2));
            vec![slot, index[1].clone(), position, index[2].clone()]
        }
    };
    Affine::linear(&at, &sink.ty.strides())
}

/// An element of the results.
struct At {
    /// Its index.
    index: Vec<Affine>,
    /// Where it lies among the elements that the row stores.
    within: Affine,
}

/// Computes the elements of all results at all indices, then stores them; what goes into blocks waits in scratch.
fn store_elements(b: &mut Build<'_>, sinks: &[Sink], members: &[usize], indices: &[At]) -> Result<()> {
    let mut stores = vec![];
    for At { index, within } in indices {
        for &m in members {
            let sink = &sinks[m];
            let value = b.demand_lanes(sink.value, index)?;
            if let Some(Finished::Scratch(from)) = sink.finished {
                b.index(within)?;
                stores.push((Place::Scratch(from), DType::F32, within.clone(), value));
                continue;
            }
            let offset = stored_at(b, sink, index);
            // The address is part of the loads.
            b.index(&offset)?;
            let place = b.buffer(Operand::Result(sink.result), sink.ty.dtype, true);
            stores.push((place, sink.ty.dtype, offset, value));
        }
    }
    for (place, dtype, offset, value) in stores {
        b.store(place, dtype, &offset, value)?;
    }
    Ok(())
}
