//! Steps of any graph: named inputs, sizes found from them, what is refused.

mod tiny;

use llamac_formats::program::*;
use llamac_formats::{DType, Extent, Over, Reach, Sizes, Sym, Touch};
use llamac_runtime::{Data, Executable, GenerateError, Generator, Pool, Region, Session, StepError, Tier};
use std::sync::Arc;
use tiny::{BOUNDS, Kernels, c};

/// y[s, :] = 2·x[s, :] and count[0] = S·T; buffers x, y, count; scalars S, T, width.
unsafe extern "C" fn double(args: *const KernelArgs, begin: u64, end: u64) {
    // SAFETY: the program gives three buffers and three scalars.
    unsafe {
        let (buffers, scalars) = ((*args).buffers, (*args).scalars);
        let (x, y, count) =
            ((*buffers).cast::<f32>(), (*buffers.add(1)).cast::<f32>(), (*buffers.add(2)).cast::<i32>());
        let width = *scalars.add(2);
        for i in begin * width..end * width {
            *y.add(i as usize) = 2.0 * *x.add(i as usize);
        }
        if begin == 0 {
            *count = (*scalars * *scalars.add(1)) as i32;
        }
    }
}

/// Inputs x: f32[S, 4], mask: bool[T] and ids: i32[2] below 9; outputs y: f32[S, 4] and count: i32[1].
fn doubling() -> Program {
    let (mut program, _) = tiny::model();
    let (s, t) = (Extent::sym(Sym::Rows), Extent::sym(Sym::Tokens));
    let port = |name: &str, dtype, dims, limit| PortInfo { name: name.into(), dtype, dims, limit };
    program.name = "doubling".into();
    program.weights.clear();
    program.states.clear();
    program.inputs = vec![
        port("x", DType::F32, vec![s, c(4)], None),
        port("mask", DType::Bool, vec![t], None),
        port("ids", DType::I32, vec![c(2)], Some(9)),
    ];
    program.outputs =
        vec![port("y", DType::F32, vec![s, c(4)], None), port("count", DType::I32, vec![Extent::ONE], None)];
    program.kernels.truncate(1);
    program.entries.remove(0);
    let entry = &mut program.entries[0];
    entry.arena_bytes = 0;
    entry.buffers.clear();
    entry.steps.truncate(1);
    entry.steps[0].work = Work::Rows(RowsWork {
        kernel: 0,
        count: s,
        grain: 2,
        operands: vec![Operand::Input(0), Operand::Output(0), Operand::Output(1)],
        scalars: vec![s, t, c(4)],
    });
    let touch = |bytes, stored| Touch { bytes, stored, below: None };
    let operands = vec![touch(BOUNDS.rows * 16, false), touch(BOUNDS.rows * 16, true), touch(4, true)];
    program.kernels[0].reaches =
        vec![Reach { bounds: BOUNDS, over: Over::Rows(s), scalars: vec![s, t, c(4)], operands }];
    program
}

fn open(program: Program, threads: usize) -> Session {
    let code = Arc::new(Kernels(vec![double as *const () as usize]));
    let executable = Executable::new(program, code, Arc::new(Region::new(0, "no weights").unwrap())).unwrap();
    Session::new(Arc::new(executable), Arc::new(Pool::new(threads).unwrap()), Tier::Portable).unwrap()
}

#[test]
fn any_graph_runs_at_any_size() {
    for threads in [1, 2] {
        let mut session = open(doubling(), threads);
        assert!(session.outputs().is_none());
        for (rows, tokens) in [(5, 3), (16, 64), (1, 1), (5, 4)] {
            let x: Vec<f32> = (0..rows * 4).map(|i| i as f32).collect();
            let inputs = [("mask", Data::Bool(&vec![1; tokens])), ("ids", Data::I32(&[0, 8])), ("x", Data::F32(&x))];
            let outputs = session.step(&inputs).unwrap();
            assert_eq!(outputs.sizes(), Sizes { rows, outputs: 1, tokens });
            let doubled: Vec<f32> = x.iter().map(|v| 2.0 * v).collect();
            assert_eq!(outputs.get("y"), Some(Data::F32(&doubled)));
            assert_eq!(outputs.get("count"), Some(Data::I32(&[(rows * tokens) as i32])));
            assert_eq!(outputs.get("z"), None);
        }
    }
}

#[test]
fn inputs_must_be_what_the_program_takes() {
    let mut session = open(doubling(), 1);
    let (x, mask, ids) = (Data::F32(&[1.0; 8]), Data::Bool(&[1; 3]), Data::I32(&[0, 0]));
    let mut refused = |inputs: &[(&str, Data)]| session.step(inputs).map(|_| ()).unwrap_err();
    let expected = "x: f32[S, 4], mask: bool[T], ids: i32[2]".to_owned();
    let missing = |name: &str| StepError::Missing { name: name.into(), expected: expected.clone() };
    assert_eq!(refused(&[("x", x), ("mask", mask)]), missing("ids"));
    assert_eq!(refused(&[("x", x), ("mask", mask), ("other", ids)]), missing("ids"));
    assert_eq!(refused(&[("x", x), ("mask", mask), ("mask", mask)]), missing("ids"));
    let unknown = StepError::Unknown { found: 4, expected: expected.clone() };
    assert_eq!(refused(&[("x", x), ("mask", mask), ("ids", ids), ("more", ids)]), unknown);
    let error = refused(&[("x", ids), ("mask", mask), ("ids", ids)]);
    assert_eq!(error, StepError::WrongType { name: "x".into(), found: DType::I32, expected: DType::F32 });
    let mut length = |inputs: &[(&str, Data)]| match refused(inputs) {
        StepError::WrongLength { name, .. } => name,
        other => panic!("{other}"),
    };
    assert_eq!(length(&[("x", Data::F32(&[0.0; 7])), ("mask", mask), ("ids", ids)]), "x");
    assert_eq!(length(&[("x", x), ("mask", mask), ("ids", Data::I32(&[0]))]), "ids");
    for bad in [-1, 9, i32::MIN] {
        let error = refused(&[("x", x), ("mask", mask), ("ids", Data::I32(&[0, bad]))]);
        assert_eq!(error, StepError::OutOfRange { name: "ids".into(), at: 1, found: bad.into(), limit: 9 });
    }
    let error = refused(&[("x", x), ("mask", Data::Bool(&[0, 2])), ("ids", ids)]);
    assert_eq!(error, StepError::OutOfRange { name: "mask".into(), at: 1, found: 2, limit: 2 });
    for (rows, tokens) in [(0, 1), (17, 1), (1, 65)] {
        let (x, mask) = (vec![0.0; rows * 4], vec![0; tokens]);
        let error = refused(&[("x", Data::F32(&x)), ("mask", Data::Bool(&mask)), ("ids", ids)]);
        assert!(matches!(error, StepError::TooLarge { .. }), "{error}");
    }
}

#[test]
fn rows_lie_together_and_ascend() {
    let mut session = tiny::session(1);
    let mut step = |positions: &[i32], slots: &[i32], outputs: &[i32]| {
        let tokens = vec![1; positions.len()];
        let inputs = [
            ("tokens", Data::I32(&tokens)),
            ("positions", Data::I32(positions)),
            ("slots", Data::I32(slots)),
            ("outputs", Data::I32(outputs)),
        ];
        session.step(&inputs).map(|o| o.sizes())
    };
    assert_eq!(step(&[0, 1, 0], &[2, 2, 0], &[2, 1]), Ok(Sizes { rows: 3, outputs: 2, tokens: 2 }));
    assert_eq!(step(&[7], &[0], &[]), Ok(Sizes { rows: 1, outputs: 0, tokens: 8 }));
    assert_eq!(step(&[0, 0, 1], &[2, 0, 2], &[0]), Err(StepError::NotGrouped { row: 2, slot: 2 }));
    for second in [3, 2] {
        let error = StepError::NotAscending { row: 2, slot: 1, found: second, before: 3 };
        assert_eq!(step(&[0, 3, second as i32], &[0, 1, 1], &[0]), Err(error));
    }
    let out = |name: &str, at, found, limit| Err(StepError::OutOfRange { name: name.into(), at, found, limit });
    assert_eq!(step(&[0, 64], &[0, 0], &[0]), out("positions", 1, 64, 64));
    assert_eq!(step(&[-1], &[0], &[0]), out("positions", 0, -1, 64));
    assert_eq!(step(&[0, 1], &[0, 3], &[0]), out("slots", 1, 3, 3));
    // An output is one of this step's rows, whatever the chunk.
    assert_eq!(step(&[0, 1], &[0, 0], &[1, 2]), out("outputs", 1, 2, 2));
    assert!(matches!(step(&[0, 1], &[0], &[0]), Err(StepError::WrongLength { .. })));
    assert!(matches!(step(&[0, 1], &[0, 0], &[0; 5]), Err(StepError::TooLarge { outputs: 5, .. })));
}

#[test]
fn states_start_at_zero_and_can_be_reset() {
    let mut session = tiny::session(1);
    let sum = |session: &Session| match session.state("k") {
        Some(Data::F32(k)) => k.iter().map(|v| v.abs()).sum::<f32>(),
        other => panic!("{other:?}"),
    };
    assert_eq!(sum(&session), 0.0);
    let one = Data::I32(&[0]);
    session.step(&[("tokens", one), ("positions", one), ("slots", one), ("outputs", one)]).unwrap();
    assert!(sum(&session) > 0.0);
    session.reset();
    assert_eq!(sum(&session), 0.0);
    assert!(session.state("x").is_none());
}

#[test]
fn only_a_language_model_generates() {
    let error = Generator::new(open(doubling(), 1)).err().unwrap();
    assert!(matches!(&error, GenerateError::NoModel { missing, .. } if missing.contains("tokens")), "{error}");
    let (mut program, weights) = tiny::model();
    program.outputs[0].name = "other".into();
    let executable = Arc::new(tiny::load(program, weights).unwrap());
    let session = Session::new(executable, Arc::new(Pool::new(1).unwrap()), Tier::Portable).unwrap();
    let error = Generator::new(session).err().unwrap();
    assert!(matches!(&error, GenerateError::NoModel { missing, .. } if missing.contains("logits")), "{error}");
}

#[test]
fn sessions_share_an_executable_and_a_pool() {
    let (program, weights) = tiny::model();
    let executable = Arc::new(tiny::load(program, weights).unwrap());
    let pool = Arc::new(Pool::new(2).unwrap());
    let new = || Generator::new(Session::new(executable.clone(), pool.clone(), Tier::detect()).unwrap()).unwrap();
    let (mut a, mut b) = (new(), new());
    a.prefill(0, &[1, 2, 3]).unwrap();
    let alone = b.prefill(0, &[4]).unwrap().to_vec();
    assert_eq!(a.decode(&[(1, 4)]).unwrap().data, alone);
}
