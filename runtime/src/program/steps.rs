//! The rules that one step of a program must keep, at the bounds of its entry.

use super::calls::Call;
use super::error::Fault;
use super::reach::{Base, Ground, Reach, bytes, disjoint, overflow, product};
use crate::attention::{MOST_TOKENS, is_cache};
use crate::dot::BATCH_AXES;
use llamac_formats::program::{
    AttentionWork, DotWork, EpilogueWork, GatherWork, GemmSegment, GemmWork, Operand, StateInfo, Work,
};
use llamac_formats::{DType, Extent, Over, PANEL_WIDTH};

impl Ground<'_> {
    /// Checks one step; `calls` remembers how each kernel is called.
    pub(super) fn step(&self, work: &Work, calls: &mut [Option<Call>]) -> Result<(), Fault> {
        match work {
            Work::Rows(work) => self.rows(work, calls),
            Work::Gemm(work) => self.gemm(work, calls),
            Work::Dot(work) => self.dot(work),
            Work::Attention(work) => self.attention(work),
            Work::Gather(work) => self.gather(work),
        }
    }

    /// A weight in panels: `[N, K]` with these K.
    fn panels(&self, weight: usize, k: Option<usize>) -> Result<(usize, usize), Fault> {
        let count = self.program.weights.len();
        let info = self.program.weights.get(weight).ok_or(Fault::NoSuch { what: "weight", index: weight, count })?;
        let [n, width] = info.dims[..] else {
            return Err(mismatch("the rank of a packed weight", info.dims.len(), 2));
        };
        if !info.panels {
            let expected = "a weight in panels";
            return Err(Fault::WrongLayout { weight, dtype: info.dtype, panels: false, expected });
        }
        match k {
            Some(k) if k != width => Err(mismatch(&format!("K of weight {weight}"), width, k)),
            _ => Ok((n, width)),
        }
    }

    fn segment(&self, i: usize, segment: &GemmSegment, k: usize) -> Result<(), Fault> {
        let (n, _) = self.panels(segment.weight, Some(k))?;
        at_least_one(&format!("n of segment {i}"), segment.n)?;
        at_least_one(&format!("the panel step of segment {i}"), segment.step)?;
        let panels = n.div_ceil(PANEL_WIDTH);
        // Also where there is but one panel, and nothing to step over.
        if segment.step > panels {
            return Err(Fault::Mismatch {
                what: format!("the panel step of segment {i}"),
                found: segment.step.to_string(),
                expected: format!("at most the {panels} panels of weight {}", segment.weight),
            });
        }
        let last = (segment.n.div_ceil(PANEL_WIDTH) - 1)
            .checked_mul(segment.step)
            .and_then(|s| s.checked_add(segment.first))
            .ok_or_else(|| overflow("a segment"))?;
        if last >= panels {
            return Err(Fault::Mismatch {
                what: format!("the last panel of segment {i}"),
                found: last.to_string(),
                expected: format!("below the {panels} panels of weight {}", segment.weight),
            });
        }
        Ok(())
    }

    fn gemm(&self, work: &GemmWork, calls: &mut [Option<Call>]) -> Result<(), Fault> {
        let m = self.value("M", work.m)?;
        at_least_one("K", work.k)?;
        at_least_one("the number of segments", work.segments.len())?;
        let mut n = 0usize;
        for (i, segment) in work.segments.iter().enumerate() {
            self.segment(i, segment, work.k)?;
            n = n.checked_add(segment.n).ok_or_else(|| overflow("N"))?;
        }
        if !work.act.is_activation() {
            let what = "the activations".to_owned();
            return Err(Fault::WrongType { what, found: work.act, expected: DType::F32 });
        }
        let (block, _) = work.act.block();
        if !work.k.is_multiple_of(block) {
            let expected = format!("whole blocks of {block}");
            return Err(Fault::Mismatch { what: "K".to_owned(), found: work.k.to_string(), expected });
        }
        let a = self.access_of("the activations", work.act, &work.a, &[m, work.k])?;
        expect_unit("the stride of k", work.a.strides[1], work.k)?;
        for indirect in &work.a.indirects {
            expect_extent("the stride of k in an index", indirect.strides[1], Extent::ZERO)?;
        }
        match &work.epilogue {
            Some(epilogue) => {
                let first = work.segments[0].n;
                if let Some(other) = work.segments.iter().find(|s| epilogue.paired && s.n != first) {
                    return Err(mismatch("n of a paired segment", other.n, first));
                }
                let (columns, segments) = if epilogue.paired { (first, work.segments.len()) } else { (n, 1) };
                let over = Over::Tiles { rows: work.m, columns, segments };
                let EpilogueWork { kernel, operands, scalars, .. } = epilogue;
                self.call(*kernel, over, calls, operands, scalars)?;
            }
            None => {
                self.writable("the result", work.out)?;
                let elements = product([m, n]).ok_or_else(|| overflow("the result"))?;
                let out = self.dense("the result", work.out, elements)?;
                disjoint("the result", &out, "the activations", &a)?;
                if let Some(packed) = self.packed(work, m)? {
                    disjoint("the result", &out, "the packed activations", &packed)?;
                }
            }
        }
        if let Some(packed) = self.packed(work, m)? {
            disjoint("the packed activations", &packed, "the activations", &a)?;
        }
        Ok(())
    }

    fn packed(&self, work: &GemmWork, m: usize) -> Result<Option<Reach>, Fault> {
        let what = "the packed activations";
        match work.scratch {
            None if m <= 1 => Ok(None),
            Some(operand @ Operand::Arena(offset)) => {
                if !offset.is_multiple_of(crate::memory::ALIGN) {
                    return Err(Fault::Misaligned { what: what.to_owned(), offset, align: crate::memory::ALIGN });
                }
                let elements = product([m, work.k]).ok_or_else(|| overflow(what))?;
                self.dense(what, operand, elements).map(Some)
            }
            other => Err(Fault::Mismatch {
                what: format!("the place of {what} of {m} rows"),
                found: other.map_or("none".to_owned(), super::reach::name),
                expected: "in the arena".to_owned(),
            }),
        }
    }

    fn dot(&self, work: &DotWork) -> Result<(), Fault> {
        if work.batch.len() > BATCH_AXES {
            let what = "the number of batch axes".to_owned();
            let expected = format!("at most {BATCH_AXES}");
            return Err(Fault::Mismatch { what, found: work.batch.len().to_string(), expected });
        }
        let mut dims = Vec::with_capacity(work.batch.len() + 2);
        for extent in &work.batch {
            dims.push(self.value("a batch axis", *extent)?);
        }
        let axes = dims.len();
        let (m, n, k) = (self.value("M", work.m)?, self.value("N", work.n)?, self.value("K", work.k)?);
        at_least_one("K", k)?;
        countable("the number of results", product(dims.iter().copied().chain([m, n])).unwrap_or(usize::MAX))?;
        dims.extend([m, k]);
        let lhs = self.access("the left side", &work.lhs, &dims)?;
        dims[axes] = n;
        let rhs = self.access("the right side", &work.rhs, &dims)?;
        (dims[axes], dims[axes + 1]) = (m, n);
        self.writable("the result", work.out.base)?;
        let out = self.access("the result", &work.out, &dims)?;
        self.apart("the result", &out, &dims)?;
        // Both sides may repeat their elements along K, but not for ever.
        if k > MOST_REPEATED && [&work.lhs, &work.rhs].iter().all(|a| a.strides[axes + 1].factor == 0) {
            return Err(Fault::Mismatch {
                what: "K of sides without a stride along it".to_owned(),
                found: k.to_string(),
                expected: format!("at most {MOST_REPEATED}"),
            });
        }
        disjoint("the result", &out, "the left side", &lhs)?;
        disjoint("the result", &out, "the right side", &rhs)
    }

    /// Refuses a result that has more elements than the memory that it covers: they would be written over each other, any
    /// number of times.
    fn apart(&self, what: &str, reach: &Reach, dims: &[usize]) -> Result<(), Fault> {
        let needed = product(dims.iter().copied()).and_then(|n| bytes(n, DType::F32)).ok_or_else(|| overflow(what))?;
        let available = reach.bytes.len();
        if needed > available {
            return Err(Fault::TooLarge { what: what.to_owned(), needed, available });
        }
        Ok(())
    }

    fn cache(&self, what: &'static str, index: usize) -> Result<&StateInfo, Fault> {
        let count = self.program.states.len();
        let state = self.program.states.get(index).ok_or(Fault::NoSuch { what: "state", index, count })?;
        if !matches!(state.dtype, DType::F32 | DType::BF16 | DType::Q8) {
            return Err(Fault::WrongType { what: what.to_owned(), found: state.dtype, expected: DType::F32 });
        }
        Ok(state)
    }

    fn attention(&self, work: &AttentionWork) -> Result<(), Fault> {
        let (keys, values) = (self.cache("the keys", work.keys)?, self.cache("the values", work.values)?);
        for (what, size) in [("kv_heads", work.kv_heads), ("group", work.group), ("head_dim", work.head_dim)] {
            at_least_one(what, size)?;
        }
        if values.dtype != keys.dtype || !is_cache(keys.dtype, work.head_dim) {
            return Err(Fault::Mismatch {
                what: "the types of keys and values".to_owned(),
                found: format!("{} and {}, {} wide", keys.dtype, values.dtype, work.head_dim),
                expected: "one type, of whose blocks a head is some".to_owned(),
            });
        }
        if !matches!(work.act, DType::F32 | DType::BF16) {
            let what = "the operands of the products".to_owned();
            return Err(Fault::WrongType { what, found: work.act, expected: DType::F32 });
        }
        let shaped = |dims: &[usize]| dims.len() == 4 && dims[1] == work.kv_heads && dims[3] == work.head_dim;
        if !shaped(&keys.dims) || values.dims != keys.dims {
            return Err(Fault::Mismatch {
                what: "the shapes of keys and values".to_owned(),
                found: format!("{:?} and {:?}", keys.dims, values.dims),
                expected: format!("both [slots, {}, tokens, {}]", work.kv_heads, work.head_dim),
            });
        }
        if keys.dims[2] >= MOST_TOKENS {
            return Err(Fault::Mismatch {
                what: "the tokens of a slot of the cache".to_owned(),
                found: keys.dims[2].to_string(),
                expected: format!("fewer than {MOST_TOKENS}: compile with a smaller context (-c)"),
            });
        }
        let rows = self.sizes.rows;
        for (what, operand, most) in
            [("the positions", work.positions, keys.dims[2]), ("the slots", work.slots, keys.dims[0])]
        {
            let limit = self.indices(what, operand, rows)?;
            if limit > most {
                return Err(Fault::Mismatch {
                    what: format!("the limit of {what}"),
                    found: limit.to_string(),
                    expected: format!("at most {most}, the cache's size"),
                });
            }
        }
        let dims = [rows, work.kv_heads, work.group, work.head_dim];
        let heads = product(dims).ok_or_else(|| overflow("the heads"))?;
        bytes(heads, DType::F32).ok_or_else(|| overflow("the heads"))?;
        let q = self.access("the queries", &work.q, &dims)?;
        self.writable("the result", work.out.base)?;
        let out = self.access("the result", &work.out, &dims)?;
        expect_unit("the last stride of the queries", work.q.strides[3], work.head_dim)?;
        expect_unit("the last stride of the result", work.out.strides[3], work.head_dim)?;
        for access in [&work.q, &work.out] {
            for indirect in &access.indirects {
                expect_extent("the last stride of an index", indirect.strides[3], Extent::ZERO)?;
            }
        }
        self.apart("the result", &out, &dims)?;
        disjoint("the result", &out, "the queries", &q)?;
        for (what, state) in [("the keys", work.keys), ("the values", work.values)] {
            disjoint("the result", &out, what, &Reach { base: Base::State(state), bytes: 0..usize::MAX })?;
        }
        Ok(())
    }

    fn gather(&self, work: &GatherWork) -> Result<(), Fault> {
        let (rows, width) = self.panels(work.weight, None)?;
        let count = self.value("the number of rows", work.count)?;
        let limit = self.indices("the row numbers", work.ids, count)?;
        if limit > rows {
            return Err(Fault::Mismatch {
                what: "the limit of the row numbers".to_owned(),
                found: limit.to_string(),
                expected: format!("at most {rows}, the rows of weight {}", work.weight),
            });
        }
        self.writable("the result", work.out)?;
        let elements = product([count, width]).ok_or_else(|| overflow("the result"))?;
        self.dense("the result", work.out, elements).map(drop)
    }
}

fn mismatch(what: &str, found: usize, expected: usize) -> Fault {
    Fault::Mismatch { what: what.to_owned(), found: found.to_string(), expected: expected.to_string() }
}

pub(super) fn at_least_one(what: &str, found: usize) -> Result<(), Fault> {
    if found == 0 {
        return Err(Fault::Mismatch {
            what: what.to_owned(),
            found: "0".to_owned(),
            expected: "at least 1".to_owned(),
        });
    }
    Ok(())
}

/// The longest contraction of two sides that both repeat one element along it.
const MOST_REPEATED: usize = 1 << 24;

/// Tasks are numbered in 32 bits.
pub(super) fn countable(what: &str, found: usize) -> Result<(), Fault> {
    if u32::try_from(found).is_err() {
        let expected = format!("at most {}", u32::MAX);
        return Err(Fault::Mismatch { what: what.to_owned(), found: found.to_string(), expected });
    }
    Ok(())
}

/// The stride of an axis that is read in one piece; of a single element it does not matter.
fn expect_unit(what: &str, found: Extent, size: usize) -> Result<(), Fault> {
    if size == 1 { Ok(()) } else { expect_extent(what, found, Extent::ONE) }
}

fn expect_extent(what: &str, found: Extent, expected: Extent) -> Result<(), Fault> {
    // A stride of zero is the same for every exponent.
    if found == expected || (found.factor == 0 && expected.factor == 0) {
        return Ok(());
    }
    Err(Fault::Mismatch { what: what.to_owned(), found: found.to_string(), expected: expected.to_string() })
}
