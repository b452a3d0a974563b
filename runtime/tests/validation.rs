//! A program with anything wrong in it is refused before it runs, and the error says where.

mod tiny;

use llamac_formats::program::*;
use llamac_formats::{Bounds, DType, Extent, Sym};
use llamac_runtime::program::Fault;
use llamac_runtime::{Code, Executable, LoadError, Pool, Region, Session, Tier};
use serde_json::Value;
use std::sync::Arc;
use tiny::{BOUNDS, c};

const EMBED: usize = 0;
const QKV: usize = 1;
const WRITE: usize = 2;
const ATTENTION: usize = 3;
const O: usize = 4;
const GATE: usize = 6;
const DOWN: usize = 7;
const HEAD: usize = 8;

fn refused(break_it: impl FnOnce(&mut Program)) -> LoadError {
    let (mut program, weights) = tiny::model();
    break_it(&mut program);
    match tiny::load(program, weights) {
        Ok(_) => panic!("the program was taken"),
        Err(error) => error,
    }
}

/// Breaks a step of the entry `rows`, and expects the error to name it.
#[track_caller]
fn refused_step(step: usize, break_it: impl FnOnce(&mut Work)) -> Fault {
    let error = refused(|p| break_it(&mut p.entries[1].steps[step].work));
    assert!(error.place.starts_with(&format!("entry rows, step {step} (")), "{error}");
    assert!(error.to_string().starts_with("program \"tiny\", entry rows"), "{error}");
    error.fault
}

macro_rules! of {
    ($kind:ident, |$work:ident| $body:expr) => {
        |work: &mut Work| match work {
            Work::$kind($work) => {
                $body;
            }
            other => panic!("{other:?}"),
        }
    };
}

macro_rules! refuses {
    ($step:expr, $kind:ident, |$work:ident| $body:expr, $fault:pat $(if $guard:expr)?) => {
        match refused_step($step, of!($kind, |$work| $body)) {
            $fault $(if $guard)? => {}
            other => panic!("{other:?}"),
        }
    };
}

#[test]
fn the_unbroken_program_is_taken() {
    let (program, weights) = tiny::model();
    tiny::load(program, weights).unwrap();
}

#[test]
fn operands_must_exist() {
    for operand in [Operand::Weight(8), Operand::State(2), Operand::Input(4), Operand::Output(1)] {
        refuses!(WRITE, Rows, |w| w.operands[0] = operand, Fault::NoSuch { .. });
        refuses!(HEAD, Dot, |w| w.lhs.base = operand, Fault::NoSuch { .. });
        refuses!(QKV, Gemm, |w| w.a.base = operand, Fault::NoSuch { .. });
        refuses!(ATTENTION, Attention, |w| w.q.base = operand, Fault::NoSuch { .. });
    }
    let far = Operand::Arena(usize::MAX);
    refuses!(WRITE, Rows, |w| w.operands[0] = far, Fault::TooLarge { .. });
    refuses!(O, Gemm, |w| w.epilogue.as_mut().unwrap().operands[0] = far, Fault::TooLarge { .. });
    refuses!(QKV, Gemm, |w| w.segments[1].weight = 99, Fault::NoSuch { index: 99, count: 8, .. });
    refuses!(EMBED, Gather, |w| w.weight = 8, Fault::NoSuch { .. });
    refuses!(ATTENTION, Attention, |w| w.keys = 2, Fault::NoSuch { what: "state", .. });
    refuses!(WRITE, Rows, |w| w.kernel = 5, Fault::NoSuch { what: "kernel", index: 5, count: 5 });
    refuses!(O, Gemm, |w| w.epilogue.as_mut().unwrap().kernel = 5, Fault::NoSuch { what: "kernel", .. });
}

#[test]
fn operands_must_hold_what_is_read_and_written() {
    let arena = tiny::model().0.entries[1].arena_bytes;
    let end = Operand::Arena(arena - 64);
    refuses!(QKV, Gemm, |w| w.a.base = end, Fault::TooLarge { .. });
    refuses!(QKV, Gemm, |w| w.out = end, Fault::TooLarge { .. });
    refuses!(QKV, Gemm, |w| w.scratch = Some(end), Fault::TooLarge { .. });
    refuses!(QKV, Gemm, |w| w.a.strides[0] = c(1 << 20), Fault::TooLarge { .. });
    refuses!(QKV, Gemm, |w| w.a.offset = c(1 << 20), Fault::TooLarge { .. });
    refuses!(QKV, Gemm, |w| w.m = c(1 << 30), Fault::TooLarge { .. });
    refuses!(O, Gemm, |w| w.a.indirects[0].stride = c(1 << 20), Fault::TooLarge { .. });
    refuses!(O, Gemm, |w| w.a.indirects[0].offset = c(1 << 20), Fault::TooLarge { .. });
    refuses!(HEAD, Dot, |w| w.lhs.base = end, Fault::TooLarge { .. });
    refuses!(HEAD, Dot, |w| w.rhs.strides[1] = c(1000), Fault::TooLarge { .. });
    refuses!(HEAD, Dot, |w| w.n = c(38), Fault::TooLarge { .. });
    refuses!(HEAD, Dot, |w| (w.batch[0], w.out.strides[0]) = (c(2), c(148)), Fault::TooLarge { .. });
    refuses!(ATTENTION, Attention, |w| w.q.base = end, Fault::TooLarge { .. });
    refuses!(ATTENTION, Attention, |w| w.out.base = Operand::Output(0), Fault::TooLarge { .. });
    refuses!(EMBED, Gather, |w| w.out = end, Fault::TooLarge { .. });
    refuses!(EMBED, Gather, |w| w.count = c(17), Fault::TooLarge { .. });
    let error = refused(|p| p.entries[1].arena_bytes -= 64);
    assert!(matches!(error.fault, Fault::TooLarge { .. }), "{error}");
    let error = refused(|p| p.entries[1].buffers[0].offset = usize::MAX);
    assert!(matches!(error.fault, Fault::Overflow { .. }), "{error}");
}

#[test]
fn sizes_must_not_overflow() {
    let huge = Extent { factor: u64::MAX, powers: [3, 2, 255] };
    refuses!(WRITE, Rows, |w| w.count = huge, Fault::Overflow { .. });
    refuses!(WRITE, Rows, |w| w.scalars[0] = huge, Fault::Overflow { .. });
    refuses!(WRITE, Rows, |w| w.count = c(1 << 40), Fault::Mismatch { .. });
    refuses!(QKV, Gemm, |w| w.m = huge, Fault::Overflow { .. });
    refuses!(QKV, Gemm, |w| w.m = c(1 << 62), Fault::Overflow { .. });
    refuses!(QKV, Gemm, |w| w.a.strides[0] = c(1 << 62), Fault::Overflow { .. });
    refuses!(O, Gemm, |w| w.a.indirects[0].stride = c(1 << 62), Fault::Overflow { .. });
    refuses!(HEAD, Dot, |w| w.batch[0] = huge, Fault::Overflow { .. });
    refuses!(HEAD, Dot, |w| w.batch[0] = c(1 << 32), Fault::Mismatch { .. });
    refuses!(EMBED, Gather, |w| w.count = huge, Fault::Overflow { .. });
    let error = refused(|p| p.states[0].dims = vec![usize::MAX, 2]);
    assert!(matches!(error.fault, Fault::Overflow { .. }) && error.place.contains("\"k\""), "{error}");
    assert!(matches!(refused(|p| p.inputs[0].dims = vec![huge]).fault, Fault::Overflow { .. }));
    assert!(matches!(refused(|p| p.outputs[0].dims = vec![c(1 << 40), c(1 << 40)]).fault, Fault::Overflow { .. }));
    assert!(matches!(refused(|p| p.weights[7].dims = vec![1 << 40, 1 << 40]).fault, Fault::Overflow { .. }));
    assert!(matches!(refused(|p| p.weights[0].dims = vec![usize::MAX, 1]).fault, Fault::Overflow { .. }));
    assert!(matches!(refused(|p| p.kernels[2].scratch = usize::MAX).fault, Fault::Overflow { .. }));
    assert!(matches!(refused(|p| p.entries[0].arena_bytes = usize::MAX).fault, Fault::Overflow { .. }));
}

#[test]
fn weights_must_lie_in_their_section_and_be_what_steps_take_them_for() {
    let error = refused(|p| p.weights[7].offset += 64);
    assert!(matches!(error.fault, Fault::TooLarge { .. }) && error.place == "weight 7", "{error}");
    assert!(matches!(refused(|p| p.weights[3].offset += 4).fault, Fault::Misaligned { align: 64, .. }));
    assert!(matches!(refused(|p| p.weights[3].bytes -= 4).fault, Fault::Mismatch { .. }));
    assert!(matches!(refused(|p| p.weights[3].dims = vec![8, 17]).fault, Fault::Mismatch { .. }));
    assert!(matches!(refused(|p| p.weights[3].dims = vec![8]).fault, Fault::Mismatch { .. }));
    assert!(matches!(refused(|p| p.weights[3].dtype = DType::I32).fault, Fault::Mismatch { .. }));
    refuses!(QKV, Gemm, |w| w.segments[1].weight = tiny::HEAD_W, Fault::WrongLayout { weight: 7, .. });
    refuses!(EMBED, Gather, |w| w.weight = tiny::HEAD_W, Fault::WrongLayout { .. });
    refuses!(HEAD, Dot, |w| w.rhs.base = Operand::Weight(tiny::EMBED), Fault::WrongLayout { weight: 0, .. });
    refuses!(QKV, Gemm, |w| w.segments[0].weight = tiny::DOWN, Fault::Mismatch { .. });
    let (program, _) = tiny::model();
    let short = Region::new(64, "a short section").unwrap();
    assert!(matches!(tiny::load(program, short), Err(LoadError { fault: Fault::TooLarge { .. }, .. })));
}

#[test]
fn segments_must_stay_inside_their_weight() {
    refuses!(QKV, Gemm, |w| w.segments[0].n = 17, Fault::Mismatch { .. });
    refuses!(QKV, Gemm, |w| w.segments[0].first = 1, Fault::Mismatch { .. });
    refuses!(GATE, Gemm, |w| w.segments[1].first = 2, Fault::Mismatch { .. });
    refuses!(GATE, Gemm, |w| w.segments[1].step = 3, Fault::Mismatch { .. });
    refuses!(GATE, Gemm, |w| w.segments[1].step = usize::MAX, Fault::Overflow { .. } | Fault::Mismatch { .. });
    refuses!(GATE, Gemm, |w| w.segments[1].step = 0, Fault::Mismatch { .. });
    refuses!(GATE, Gemm, |w| w.segments[1].n = 23, Fault::Mismatch { .. });
    refuses!(GATE, Gemm, |w| w.segments[1].n = 0, Fault::Mismatch { .. });
    let epilogue = |w: &mut GemmWork| w.out = Operand::Weight(usize::MAX);
    let (mut program, weights) = tiny::model();
    of!(Gemm, |w| epilogue(w))(&mut program.entries[1].steps[GATE].work);
    // With an epilogue, `out` names nothing.
    tiny::open((program, weights), 1);
    refuses!(GATE, Gemm, |w| w.segments.clear(), Fault::Mismatch { .. });
    refuses!(DOWN, Gemm, |w| w.k = 25, Fault::Mismatch { .. });
}

#[test]
fn views_must_have_the_axes_that_the_work_reads() {
    refuses!(QKV, Gemm, |w| w.a.strides.push(Extent::ONE), Fault::Mismatch { .. });
    refuses!(QKV, Gemm, |w| w.a.strides = vec![c(1), c(2)], Fault::Mismatch { .. });
    refuses!(O, Gemm, |w| w.a.indirects[0].strides[1] = Extent::ONE, Fault::Mismatch { .. } | Fault::TooLarge { .. });
    refuses!(O, Gemm, |w| w.a.indirects[0].strides.truncate(1), Fault::Mismatch { .. });
    refuses!(
        O,
        Gemm,
        |w| {
            let i = w.a.indirects[0].clone();
            w.a.indirects = vec![i; 3]
        },
        Fault::Mismatch { .. }
    );
    refuses!(HEAD, Dot, |w| w.batch = vec![Extent::ONE; 5], Fault::Mismatch { .. });
    refuses!(HEAD, Dot, |w| w.lhs.strides.truncate(2), Fault::Mismatch { .. });
    refuses!(HEAD, Dot, |w| w.k = Extent::ZERO, Fault::Mismatch { .. });
    refuses!(ATTENTION, Attention, |w| w.q.strides[3] = Extent::ZERO, Fault::Mismatch { .. });
    refuses!(ATTENTION, Attention, |w| w.out.strides[3] = Extent::ZERO, Fault::Mismatch { .. });
    refuses!(ATTENTION, Attention, |w| w.head_dim = 2, Fault::Mismatch { .. });
    refuses!(ATTENTION, Attention, |w| w.kv_heads = 1, Fault::Mismatch { .. });
    refuses!(ATTENTION, Attention, |w| w.group = 0, Fault::Mismatch { .. });
    refuses!(WRITE, Rows, |w| w.grain = 0, Fault::Mismatch { .. });
    refuses!(HEAD, Dot, |w| w.lhs.base = Operand::Arena(2), Fault::Misaligned { align: 4, .. });
    refuses!(QKV, Gemm, |w| w.scratch = Some(Operand::Arena(32)), Fault::Misaligned { align: 64, .. });
    refuses!(QKV, Gemm, |w| w.scratch = None, Fault::Mismatch { .. });
    refuses!(QKV, Gemm, |w| w.scratch = Some(Operand::State(0)), Fault::Mismatch { .. });
}

#[test]
fn element_types_must_be_those_that_the_work_reads() {
    refuses!(QKV, Gemm, |w| w.a.base = Operand::Input(0), Fault::WrongType { found: DType::I32, .. });
    refuses!(HEAD, Dot, |w| w.rhs.base = Operand::Input(0), Fault::WrongType { .. });
    let error = refused(|p| p.states[1].dtype = DType::I32);
    assert!(matches!(error.fault, Fault::WrongType { found: DType::I32, .. }), "{error}");
}

#[test]
fn results_must_not_go_where_things_are_only_read() {
    for operand in [Operand::Weight(7), Operand::Input(0)] {
        refuses!(QKV, Gemm, |w| w.out = operand, Fault::ReadOnly { .. });
        refuses!(HEAD, Dot, |w| w.out.base = operand, Fault::ReadOnly { .. });
        refuses!(ATTENTION, Attention, |w| w.out.base = operand, Fault::ReadOnly { .. });
        refuses!(EMBED, Gather, |w| w.out = operand, Fault::ReadOnly { .. });
    }
}

#[test]
fn results_must_not_lie_over_what_they_are_made_of() {
    refuses!(QKV, Gemm, |w| w.out = w.a.base, Fault::Overlap { .. });
    refuses!(QKV, Gemm, |w| w.scratch = Some(w.out), Fault::Overlap { .. });
    refuses!(O, Gemm, |w| w.scratch = Some(w.a.base), Fault::Overlap { .. });
    refuses!(HEAD, Dot, |w| w.lhs.base = w.out.base, Fault::Overlap { .. });
    refuses!(ATTENTION, Attention, |w| w.out.base = w.q.base, Fault::Overlap { .. });
    refuses!(ATTENTION, Attention, |w| w.out.base = Operand::State(w.values), Fault::Overlap { .. });
}

#[test]
fn indices_must_be_limited_by_what_they_index() {
    refuses!(EMBED, Gather, |w| w.ids = Operand::Arena(0), Fault::Unlimited { .. });
    refuses!(EMBED, Gather, |w| w.weight = tiny::WQ, Fault::Mismatch { .. });
    refuses!(O, Gemm, |w| w.a.indirects[0].index = Operand::State(0), Fault::Unlimited { .. });
    refuses!(ATTENTION, Attention, |w| w.positions = Operand::Arena(0), Fault::Unlimited { .. });
    assert!(matches!(refused(|p| p.inputs[tiny::TOKENS].limit = None).fault, Fault::Unlimited { .. }));
    assert!(matches!(refused(|p| p.inputs[tiny::TOKENS].limit = Some(38)).fault, Fault::Mismatch { .. }));
    for (axis, size) in [(0, BOUNDS.slots - 1), (2, BOUNDS.tokens - 1)] {
        // The other axis grows, so that the caches are not too small.
        let grown = |dims: &mut Vec<usize>| (dims[2 - axis], dims[axis]) = (dims[2 - axis] * 2, size);
        let error = refused(|p| p.states.iter_mut().for_each(|s| grown(&mut s.dims)));
        assert!(matches!(&error.fault, Fault::Mismatch { what, .. } if what.contains("size of state")), "{error}");
    }
    // Positions are compared as f32. The kernel that writes the caches would take larger ones.
    for (tokens, taken) in [(1 << 24, false), ((1 << 24) - 1, true)] {
        let (mut program, weights) = tiny::model();
        program.states.iter_mut().for_each(|s| s.dims[2] = tokens);
        let bytes = 4 * program.states[0].dims.iter().product::<usize>();
        let touches = program.kernels[0].reaches.iter_mut().flat_map(|r| &mut r.operands[1..3]);
        touches.for_each(|touch| touch.bytes = bytes);
        let found = tiny::load(program, weights).err().map(|error| error.to_string());
        assert_eq!(found.is_none(), taken, "{found:?}");
        assert!(found.is_none_or(|e| e.contains("16777216, expected fewer than 16777216") && e.contains("-c")));
    }
    // Of the rows whose outputs are wanted the session knows that they are rows of the step, of others not.
    let error = refused(|p| p.inputs[tiny::OUTPUTS].name = "others".into());
    assert!(matches!(error.fault, Fault::TooLarge { .. }) && error.place.contains("decode"), "{error}");
    // Every attention step must go by the same rows.
    refuses_program(|p| {
        if let Work::Attention(work) = &mut p.entries[1].steps[ATTENTION].work {
            work.positions = Operand::Input(tiny::TOKENS);
        }
    });
}

#[track_caller]
fn refuses_program(break_it: impl FnOnce(&mut Program)) {
    let error = refused(break_it);
    assert!(matches!(error.fault, Fault::Mismatch { .. }), "{error}");
}

#[test]
fn kernels_are_called_only_as_they_say() {
    let arena = tiny::model().0.entries[1].arena_bytes;
    refuses!(WRITE, Rows, |w| w.count = c(4), Fault::Mismatch { what, .. } if what.contains("runs over"));
    refuses!(WRITE, Rows, |w| w.scalars[0] = c(tiny::QKV + 1), Fault::Mismatch { what, .. } if what.contains("scalars"));
    refuses!(WRITE, Rows, |w| w.scalars.clear(), Fault::Mismatch { what, .. } if what.contains("scalars"));
    refuses!(WRITE, Rows, |w| w.operands.truncate(4), Fault::Mismatch { what, .. } if what.contains("operands"));
    refuses!(WRITE, Rows, |w| w.operands[0] = Operand::Arena(arena - 64), Fault::TooLarge { .. });
    refuses!(WRITE, Rows, |w| w.operands[1] = Operand::Weight(tiny::WQ), Fault::ReadOnly { .. });
    refuses!(WRITE, Rows, |w| w.operands[1] = Operand::Output(0), Fault::TooLarge { .. });
    refuses!(WRITE, Rows, |w| w.operands[3] = Operand::Arena(0), Fault::Unlimited { .. });
    refuses!(WRITE, Rows, |w| w.operands.swap(3, 4), Fault::Mismatch { what, .. } if what.contains("limit"));
    let epilogue = |work: &mut Work, change: fn(&mut EpilogueWork)| match work {
        Work::Gemm(GemmWork { epilogue: Some(e), .. }) => change(e),
        other => panic!("{other:?}"),
    };
    let over = refused_step(GATE, |w| epilogue(w, |e| e.paired = false));
    assert!(matches!(&over, Fault::Mismatch { what, .. } if what.contains("runs over")), "{over}");
    let index = refused_step(O, |w| epilogue(w, |e| e.operands[1] = Operand::Input(tiny::TOKENS)));
    assert!(matches!(&index, Fault::TooLarge { .. } | Fault::Mismatch { .. }), "{index}");
    // A kernel that holds for fewer tokens than the entry has.
    let error = refused(|p| p.kernels[0].reaches.iter_mut().for_each(|r| r.bounds.tokens -= 1));
    assert!(matches!(&error.fault, Fault::Mismatch { what, .. } if what.contains("of the entry")), "{error}");
    refused(|p| p.kernels[0].reaches.clear());
}

#[test]
fn work_without_end_is_refused() {
    let huge = c(1 << 20);
    refuses!(HEAD, Dot, |w| (w.n, w.rhs.strides[1], w.out.strides[2]) = (huge, c(0), c(0)), Fault::TooLarge { .. });
    refuses!(
        HEAD,
        Dot,
        |w| (w.k, w.lhs.strides[2], w.rhs.strides[2]) = (c(1 << 40), c(0), c(0)),
        Fault::Mismatch { .. }
    );
    refuses!(
        ATTENTION,
        Attention,
        |w| (w.group, w.q.strides[2], w.out.strides[2]) = (1 << 40, c(0), c(0)),
        Fault::TooLarge { .. }
    );
}

#[test]
fn tables_and_bounds_must_be_sound() {
    refuses_program(|p| p.entries.clear());
    refuses_program(|p| p.bounds.rows = 0);
    refuses_program(|p| p.bounds.tokens = usize::MAX);
    refuses_program(|p| p.bounds.slots = 1 << 31);
    refuses_program(|p| p.entries[1].bounds = Bounds { rows: 17, ..BOUNDS });
    refuses_program(|p| p.entries[0].bounds.outputs = 0);
    let twice = refused(|p| p.inputs[1].name = "tokens".into());
    assert_eq!(twice.fault, Fault::Duplicate { name: "tokens".into() });
    // A kernel cannot be a row kernel here and an epilogue there.
    refuses!(WRITE, Rows, |w| w.kernel = 1, Fault::Mismatch { .. });
    // Rows are one per position.
    refuses_program(|p| p.inputs[tiny::SLOTS].dims = vec![Extent::sym(Sym::Rows), Extent::ONE]);
}

/// Every number of a program, by chance, becomes another: it is taken or refused, and opening what is taken gives a session
/// or an error.
#[test]
fn damage_by_chance_is_refused_without_a_panic() {
    fn numbers<'a>(value: &'a mut Value, found: &mut Vec<&'a mut Value>) {
        match value {
            Value::Number(_) => found.push(value),
            Value::Array(items) => items.iter_mut().for_each(|v| numbers(v, found)),
            Value::Object(fields) => fields.values_mut().for_each(|v| numbers(v, found)),
            _ => {}
        }
    }
    const ODD: [u64; 14] = [0, 1, 2, 3, 7, 15, 17, 64, 255, 1 << 31, 1 << 40, i64::MAX as u64, u64::MAX - 63, u64::MAX];
    let pool = Arc::new(Pool::new(1).unwrap());
    let mut random = tiny::numbers(7, 12_000).into_iter().map(|v| (f64::from(v) + 1.0) / 2.0);
    let (mut taken, mut refused) = (0, 0);
    for variant in [tiny::model, tiny::unfused] {
        let (program, _) = variant();
        let intact = serde_json::to_value(&program).unwrap();
        let kernels = program.kernels;
        for _ in 0..1500 {
            let mut damaged = intact.clone();
            let mut places = Vec::new();
            numbers(&mut damaged, &mut places);
            for _ in 0..2 {
                let (at, with) = (random.next().unwrap(), random.next().unwrap());
                let at = ((at * places.len() as f64) as usize).min(places.len() - 1);
                *places[at] = ODD[((with * ODD.len() as f64) as usize).min(ODD.len() - 1)].into();
            }
            // Some numbers fit no field, such as an exponent of 2^31.
            let Ok(mut program) = serde_json::from_value::<Program>(damaged) else { continue };
            program.kernels.clone_from(&kernels);
            match tiny::load(program, variant().1) {
                Ok(executable) => {
                    taken += 1;
                    drop(Session::new(Arc::new(executable), pool.clone(), Tier::Portable));
                }
                Err(_) => refused += 1,
            }
        }
    }
    assert!(taken > 100 && refused > 1000, "{taken} taken, {refused} refused");
}

#[test]
fn kernels_must_have_code() {
    struct None;
    // SAFETY: no address is ever called.
    unsafe impl Code for None {
        fn address(&self, _: usize) -> *const u8 {
            std::ptr::null()
        }
    }
    let (program, weights) = tiny::model();
    let error = Executable::new(program, Arc::new(None), Arc::new(weights)).err().unwrap();
    assert!(matches!(error.fault, Fault::NoCode { kernel: 0, .. }), "{error}");
}
