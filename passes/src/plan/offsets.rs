//! Offsets: buffers with lifetimes, packed into as few bytes as the search finds.
//!
//! Greedy placement in several orders, each buffer at the best gap among those already placed that live at the same time;
//! where that misses the lower bound, a seeded search over orders moves the buffers that stand highest to the front. The
//! search is counted in placements, never in time, so the same graph always gets the same offsets.

/// Offsets are multiples of this: a cache line, and the widest vector.
pub const ALIGN: usize = 64;

/// A buffer to place.
#[derive(Clone, Copy, Debug)]
pub struct Item {
    /// Bytes, a multiple of [`ALIGN`].
    pub bytes: usize,
    /// First stretch in which it lives.
    pub first: usize,
    /// Last stretch in which it lives.
    pub last: usize,
}

/// Offsets and what they add up to.
#[derive(Clone, Debug)]
pub struct Packing {
    /// One offset per item.
    pub offsets: Vec<usize>,
    /// The largest end.
    pub bytes: usize,
}

/// How many comparisons of two buffers the search may make.
const BUDGET: usize = 20_000_000;

/// The most bytes live in one stretch; `None` on overflow.
pub fn lower_bound(items: &[Item]) -> Option<usize> {
    let stretches = items.iter().map(|i| i.last + 1).max().unwrap_or(0);
    let mut live = vec![0usize; stretches];
    for item in items {
        for bytes in &mut live[item.first..=item.last] {
            *bytes = bytes.checked_add(item.bytes)?;
        }
    }
    Some(live.into_iter().max().unwrap_or(0))
}

/// Places all items. The sum of all bytes must not overflow.
pub fn pack(items: &[Item], lower_bound: usize) -> Packing {
    let neighbours = neighbours(items);
    let cost = neighbours.iter().map(Vec::len).sum::<usize>() + items.len();
    let mut orders: Vec<Vec<usize>> = vec![];
    let mut by = |key: &dyn Fn(&Item) -> [usize; 3]| {
        let mut order: Vec<usize> = (0..items.len()).collect();
        order.sort_by_key(|&i| (key(&items[i]), i));
        orders.push(order);
    };
    let long = |i: &Item| usize::MAX - (i.last - i.first);
    let large = |i: &Item| usize::MAX - i.bytes;
    by(&|i| [large(i), long(i), i.first]);
    by(&|i| [long(i), large(i), i.first]);
    by(&|i| [usize::MAX - i.bytes.saturating_mul(i.last - i.first + 1), i.first, 0]);
    by(&|i| [i.first, large(i), long(i)]);
    by(&|i| [i.first, long(i), large(i)]);
    by(&|i| [usize::MAX - i.last, large(i), long(i)]);
    let mut best: Option<(Packing, Vec<usize>)> = None;
    let mut spent = 0usize;
    for order in orders {
        for tightest in [false, true] {
            let packing = place(items, &neighbours, &order, tightest);
            spent = spent.saturating_add(cost);
            let better = best.as_ref().is_none_or(|(b, _)| packing.bytes < b.bytes);
            if better {
                best = Some((packing, order.clone()));
            }
            if best.as_ref().is_some_and(|(b, _)| b.bytes == lower_bound) {
                return best.map(|(b, _)| b).expect("just set");
            }
        }
    }
    let (mut best, mut order) = best.expect("at least one order was tried");
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut current = best.clone();
    while best.bytes > lower_bound && spent < BUDGET && items.len() > 1 {
        // Whoever stands at the top comes earlier, past one of those it collided with or to a random place.
        let top: Vec<usize> =
            (0..items.len()).filter(|&i| current.offsets[i] + items[i].bytes == current.bytes).collect();
        let mover = top[random.below(top.len())];
        let mover = match random.below(4) {
            0 if !neighbours[mover].is_empty() => neighbours[mover][random.below(neighbours[mover].len())],
            _ => mover,
        };
        let from = order.iter().position(|&i| i == mover).expect("every item is in the order");
        let to = if from == 0 { random.below(items.len()) } else { random.below(from) };
        let mut next = order.clone();
        next.remove(from);
        next.insert(to, mover);
        let packing = place(items, &neighbours, &next, random.below(2) == 0);
        spent = spent.saturating_add(cost);
        if packing.bytes <= current.bytes || random.below(32) == 0 {
            if packing.bytes < best.bytes {
                best = packing.clone();
            }
            (current, order) = (packing, next);
        }
    }
    best
}

/// For each item, the items that live in one of its stretches.
fn neighbours(items: &[Item]) -> Vec<Vec<usize>> {
    let mut neighbours = vec![vec![]; items.len()];
    let mut by_first: Vec<usize> = (0..items.len()).collect();
    by_first.sort_by_key(|&i| items[i].first);
    let mut live: Vec<usize> = vec![];
    for &i in &by_first {
        live.retain(|&j| items[j].last >= items[i].first);
        for &j in &live {
            neighbours[i].push(j);
            neighbours[j].push(i);
        }
        live.push(i);
    }
    neighbours
}

/// Places items in the given order, each in a gap between the neighbours already placed: the lowest that holds it, or
/// (`tightest`) the smallest.
fn place(items: &[Item], neighbours: &[Vec<usize>], order: &[usize], tightest: bool) -> Packing {
    let mut offsets: Vec<Option<usize>> = vec![None; items.len()];
    let mut bytes = 0;
    let mut taken: Vec<(usize, usize)> = vec![];
    for &i in order {
        taken.clear();
        taken.extend(neighbours[i].iter().filter_map(|&j| offsets[j].map(|o| (o, o + items[j].bytes))));
        taken.sort_unstable();
        let (mut end, mut found, mut smallest) = (0usize, None, usize::MAX);
        for &(begin, next_end) in &taken {
            if begin > end && begin - end >= items[i].bytes && begin - end < smallest {
                (found, smallest) = (Some(end), begin - end);
                if !tightest {
                    break;
                }
            }
            end = end.max(next_end);
        }
        let offset = found.unwrap_or(end);
        offsets[i] = Some(offset);
        bytes = bytes.max(offset + items[i].bytes);
    }
    Packing { offsets: offsets.into_iter().map(|o| o.unwrap_or(0)).collect(), bytes }
}

/// xorshift64*: reproducible, and good enough to shuffle with.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % n.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Buffers of unlike sizes with unlike lives, more tangled than a model's.
    fn tangled(seed: u64, count: usize) -> Vec<Item> {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        (0..count)
            .map(|_| {
                let first = random.below(count);
                let long = if random.below(4) == 0 { count / 2 } else { 6 };
                Item { bytes: ALIGN * (1 + random.below(100)), first, last: first + random.below(long) }
            })
            .collect()
    }

    #[test]
    fn tangled_buffers_are_packed_without_overlap_and_close_to_the_bound() {
        let mut searched = 0;
        for seed in 1..=40 {
            let items = tangled(seed, 20 + seed as usize * 2);
            let bound = lower_bound(&items).expect("small");
            let packing = pack(&items, bound);
            for (i, a) in items.iter().enumerate() {
                assert!(packing.offsets[i].is_multiple_of(ALIGN) && packing.offsets[i] + a.bytes <= packing.bytes);
                for (j, b) in items.iter().enumerate().take(i) {
                    let apart = a.last < b.first || b.last < a.first;
                    let (x, y) = (packing.offsets[i], packing.offsets[j]);
                    assert!(apart || x + a.bytes <= y || y + b.bytes <= x, "{a:?} at {x}, {b:?} at {y}");
                }
            }
            let by_size = {
                let mut order: Vec<usize> = (0..items.len()).collect();
                order.sort_by_key(|&i| usize::MAX - items[i].bytes);
                place(&items, &neighbours(&items), &order, false).bytes
            };
            searched += usize::from(packing.bytes < by_size);
            assert!(packing.bytes as f64 <= 1.05 * bound as f64, "{seed}: {} over {bound}", packing.bytes);
        }
        assert!(searched > 20, "one greedy order would have done");
    }

    #[test]
    fn the_same_buffers_get_the_same_offsets() {
        let items = tangled(7, 60);
        let bound = lower_bound(&items).expect("small");
        assert_eq!(pack(&items, bound).offsets, pack(&items, bound).offsets);
    }

    #[test]
    fn nothing_takes_nothing() {
        assert_eq!((pack(&[], 0).bytes, lower_bound(&[])), (0, Some(0)));
    }
}
