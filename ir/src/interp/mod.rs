//! The reference interpreter: slow, plain, and the judge of every pass and every kernel.
//!
//! It computes every op as its definition says, in f64 or f32 ([`Real`]), with states that outlive a step. Fusions run their
//! regions. Layouts mean nothing to it.

mod error;
mod ops;
mod real;
mod tensor;
mod weights;

pub use error::{InterpError, MAX_ELEMENTS};
pub use real::Real;
pub use tensor::{Data, Tensor};
pub use weights::WeightError;

use crate::{ConstKind, Graph, Inst, Op, RopePart, Scalar, Sizes, TensorSource, Type, Value};
use llamac_formats::DType;
use std::collections::HashMap;
use std::sync::Arc;
use tensor::{offsets, strides};

/// One input of a step.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// Row-major f32.
    Float(&'a [f32]),
    /// Row-major i32.
    Int(&'a [i32]),
}

/// An interpreter of one graph with its states.
pub struct Interpreter<'a, F> {
    graph: &'a Graph,
    source: &'a dyn TensorSource,
    states: Vec<State<F>>,
    /// Weights and tables that were made once.
    kept: HashMap<Value, Tensor<F>>,
    keeps: bool,
    rounds: bool,
}

/// A state, zero until it is first written or read.
struct State<F> {
    name: String,
    elements: usize,
    data: Vec<F>,
}

/// What a step is interpreted in.
struct Env<'e, F> {
    sizes: Sizes,
    inputs: &'e [(&'e str, Input<'e>)],
    params: Vec<Tensor<F>>,
}

impl<'a, F: Real> Interpreter<'a, F> {
    /// An interpreter of a verified graph, all states zero. Weights are read from `source` when they are first needed, and
    /// kept as f32.
    pub fn new(graph: &'a Graph, source: &'a dyn TensorSource) -> Self {
        let mut states = vec![];
        for &inst in graph.order() {
            if let Op::State { name } = graph.op(inst) {
                let elements = graph.ty(graph.result(inst)).max_elements(&graph.bounds);
                states.push(State { name: name.clone(), elements, data: vec![] });
            }
        }
        Interpreter { graph, source, states, kept: HashMap::new(), keeps: true, rounds: true }
    }

    /// Whether weights are kept between steps (they are, if nothing is said) or read anew each time they are needed: for
    /// models that fit the memory only one weight at a time.
    pub fn keep_weights(mut self, keep: bool) -> Self {
        self.keeps = keep;
        self
    }

    /// Whether a cast to fewer bits rounds (it does, if nothing is said) or passes its floats on as they are: beside each other
    /// the two show what the rounding costs. What weights and constants are stored in stays.
    pub fn round_casts(mut self, round: bool) -> Self {
        self.rounds = round;
        self
    }

    /// The elements of a state `[slots, heads, tokens, head_dim]` as the last step left them; empty while nothing has
    /// touched it. None if the graph has no state of that name.
    pub fn state(&self, name: &str) -> Option<&[F]> {
        self.states.iter().find(|s| s.name == name).map(|s| &s.data[..])
    }

    /// Makes all states zero again.
    pub fn reset(&mut self) {
        for state in &mut self.states {
            state.data.clear();
        }
    }

    /// Runs one step and returns the outputs in the graph's order.
    ///
    /// # Errors
    /// Inputs that do not fit the graph, or weights that do not fit the source.
    pub fn step(&mut self, sizes: Sizes, inputs: &[(&str, Input<'_>)]) -> Result<Vec<Tensor<F>>, InterpError> {
        let b = self.graph.bounds;
        for (what, found, bound) in
            [("rows", sizes.rows, b.rows), ("outputs", sizes.outputs, b.outputs), ("tokens", sizes.tokens, b.tokens)]
        {
            if found > bound {
                return Err(InterpError::Bound { what, found, bound });
            }
        }
        self.run(self.graph, &Env { sizes, inputs, params: vec![] })
    }

    fn run(&mut self, graph: &Graph, env: &Env<'_, F>) -> Result<Vec<Tensor<F>>, InterpError> {
        let mut last = HashMap::new();
        for &inst in graph.order() {
            for &v in graph.operands(inst) {
                last.insert(v, inst);
            }
        }
        let mut values: HashMap<Value, Tensor<F>> = HashMap::new();
        for &inst in graph.order() {
            let results = match graph.op(inst) {
                Op::Fusion(f) => {
                    let params = graph.operands(inst).iter().map(|v| values[v].clone()).collect();
                    self.run(&f.region, &Env { sizes: env.sizes, inputs: env.inputs, params })?
                }
                _ => vec![self.compute(graph, inst, &values, env)?],
            };
            for &v in graph.operands(inst) {
                if last.get(&v) == Some(&inst) && !graph.is_output(v) {
                    values.remove(&v);
                }
            }
            values.extend(graph.results(inst).iter().copied().zip(results));
        }
        Ok(graph.outputs().iter().map(|(_, v)| values[v].clone()).collect())
    }

    fn compute(
        &mut self,
        graph: &Graph,
        inst: Inst,
        values: &HashMap<Value, Tensor<F>>,
        env: &Env<'_, F>,
    ) -> Result<Tensor<F>, InterpError> {
        let x = |i: usize| &values[&graph.operands(inst)[i]];
        let result = graph.result(inst);
        let ty = graph.ty(result);
        let dims: Vec<usize> = ty.dims.iter().map(|d| d.value(&env.sizes)).collect();
        let elements = ty.elements().value(&env.sizes);
        if elements > MAX_ELEMENTS {
            return Err(InterpError::too_large(graph, inst, elements));
        }
        Ok(match graph.op(inst) {
            Op::Input { name, limit } => input(name, *limit, ty, dims, env.inputs)?,
            Op::Param { index } => env.params[*index].clone(),
            Op::Weight(_) | Op::Const(ConstKind::Rope { .. }) => self.generated(graph, inst, dims)?,
            Op::Const(ConstKind::Splat(scalar)) => splat(*scalar, ty, dims),
            Op::State { name } => {
                let index = self.states.iter().position(|s| s.name == *name).unwrap_or(0);
                let state = &mut self.states[index];
                state.data.resize(state.elements, F::default());
                Tensor { dims, data: Data::State(index) }
            }
            Op::Iota => Tensor { data: Data::Int(Arc::new((0..dims[0] as i32).collect())), dims },
            Op::Dot(spec) => {
                let rhs: Vec<&Tensor<F>> = (1..graph.operands(inst).len()).map(x).collect();
                ops::dot(spec, x(0), &rhs)
            }
            Op::Unary(op) => ops::unary(*op, x(0)),
            Op::Binary(op) => ops::binary(*op, x(0), x(1)),
            Op::Compare(op) => ops::compare(*op, x(0), x(1)),
            Op::Select => ops::select(x(0), x(1), x(2)),
            Op::Cast if !self.rounds && narrow(ty.dtype) && matches!(x(0).data, Data::Float(_)) => x(0).clone(),
            Op::Cast => ops::cast(x(0), ty.dtype),
            Op::Reduce { op, axis } => ops::reduce(*op, x(0), *axis),
            Op::Gather => {
                let (table, ids) = (x(0), x(1).ints());
                let width: usize = table.dims[1..].iter().product();
                check_indices(graph, inst, ids, table.dims[0])?;
                let index: Vec<usize> =
                    ids.iter().flat_map(|&i| (0..width).map(move |j| i as usize * width + j)).collect();
                table.pick(dims, &index)
            }
            Op::Reshape | Op::Copy => Tensor { dims, data: x(0).data.clone() },
            Op::Transpose { perm } => ops::ordered(x(0), perm),
            Op::Slice { axis, start, .. } => {
                let s = strides(&x(0).dims);
                x(0).pick(dims.clone(), &offsets(&dims, &s, start * s[*axis]))
            }
            Op::Concat { axis } => ops::concat(&(0..graph.operands(inst).len()).map(x).collect::<Vec<_>>(), *axis),
            Op::Broadcast { axes } => {
                let s = strides(&x(0).dims);
                let mut to = vec![0; dims.len()];
                for (i, &a) in axes.iter().enumerate() {
                    to[a] = s[i];
                }
                x(0).pick(dims.clone(), &offsets(&dims, &to, 0))
            }
            Op::Index => {
                let (state, slots) = (&self.states[x(0).state()].data, x(1).ints());
                let [slot_count, _, tokens, width] = [0, 1, 2, 3].map(|i| x(0).dims[i]);
                check_indices(graph, inst, slots, slot_count)?;
                let mut out = Vec::with_capacity(dims.iter().product());
                for &slot in slots {
                    for head in 0..dims[1] {
                        let begin = (slot as usize * dims[1] + head) * tokens * width;
                        out.extend_from_slice(&state[begin..begin + dims[2] * width]);
                    }
                }
                Tensor::float(dims, out)
            }
            Op::StateWrite => {
                let (rows, slots, positions) = (x(1), x(2).ints(), x(3).ints());
                let [slot_count, heads, tokens, width] = [0, 1, 2, 3].map(|i| x(0).dims[i]);
                check_indices(graph, inst, slots, slot_count)?;
                check_indices(graph, inst, positions, tokens)?;
                let data = rows.floats();
                let state = &mut self.states[x(0).state()].data;
                for (row, (&slot, &position)) in slots.iter().zip(positions).enumerate() {
                    for head in 0..heads {
                        let to = ((slot as usize * heads + head) * tokens + position as usize) * width;
                        let from = (row * heads + head) * width;
                        state[to..to + width].copy_from_slice(&data[from..from + width]);
                    }
                }
                x(0).clone()
            }
            Op::Fusion(_) => unreachable!("fusions are run, not computed"),
        })
    }

    /// What is made of the source or of a formula: the same in every step.
    fn generated(&mut self, graph: &Graph, inst: Inst, dims: Vec<usize>) -> Result<Tensor<F>, InterpError> {
        let result = graph.result(inst);
        // Values of a region have ids of their own.
        let keeps = self.keeps && std::ptr::eq(graph, self.graph);
        if let Some(kept) = self.kept.get(&result).filter(|_| keeps) {
            return Ok(kept.clone());
        }
        let data = match graph.op(inst) {
            Op::Weight(recipe) => weights::evaluate(recipe, graph.ty(result), self.source)?,
            Op::Const(ConstKind::Rope { table, part }) => {
                let count = dims.iter().product();
                let (mut cos, mut sin) = (vec![0.0; count], vec![0.0; count]);
                table.fill(0, &mut cos, &mut sin);
                if *part == RopePart::Cos { cos } else { sin }
            }
            _ => unreachable!("only weights and tables are generated"),
        };
        let made = Tensor { dims, data: Data::Narrow(Arc::new(data)) };
        if keeps {
            self.kept.insert(result, made.clone());
        }
        Ok(made)
    }
}

fn check_indices(graph: &Graph, inst: Inst, ids: &[i32], limit: usize) -> Result<(), InterpError> {
    match ids.iter().find(|&&i| i < 0 || i as usize >= limit) {
        None => Ok(()),
        Some(&found) => Err(InterpError::index(graph, inst, found, limit)),
    }
}

fn input<F: Real>(
    name: &str,
    limit: Option<usize>,
    ty: &Type,
    dims: Vec<usize>,
    inputs: &[(&str, Input<'_>)],
) -> Result<Tensor<F>, InterpError> {
    let expected = || format!("{}{dims:?}", ty.dtype);
    let Some((_, given)) = inputs.iter().find(|(n, _)| *n == name) else {
        return Err(InterpError::MissingInput { name: name.into(), expected: expected() });
    };
    let count: usize = dims.iter().product();
    let (dtype, len) = match given {
        Input::Float(v) => (DType::F32, v.len()),
        Input::Int(v) => (DType::I32, v.len()),
    };
    if dtype != ty.dtype || len != count {
        return Err(InterpError::input(name, (len, dtype), expected()));
    }
    Ok(match given {
        Input::Float(v) => Tensor::float(dims, v.iter().map(|&x| F::from_f32(x)).collect()),
        Input::Int(v) => {
            let limit = limit.unwrap_or(usize::MAX);
            let outside = |&i: &i32| ty.dtype == DType::I32 && limit != usize::MAX && (i < 0 || i as usize >= limit);
            if let Some(row) = v.iter().position(outside) {
                return Err(InterpError::Range { name: name.into(), row, found: v[row], limit });
            }
            Tensor { dims, data: Data::Int(Arc::new(v.to_vec())) }
        }
    })
}

/// Whether a cast to this type loses bits of floats.
fn narrow(dtype: DType) -> bool {
    matches!(dtype, DType::F16 | DType::BF16 | DType::Q8)
}

fn splat<F: Real>(scalar: Scalar, ty: &Type, dims: Vec<usize>) -> Tensor<F> {
    let count = dims.iter().product();
    let data = match scalar {
        Scalar::Float(v) => {
            let rounded = ops::cast(&Tensor::float(vec![1], vec![F::from_f32(v)]), ty.dtype).floats()[0];
            Data::Float(Arc::new(vec![rounded; count]))
        }
        Scalar::Int(v) => Data::Int(Arc::new(vec![v; count])),
        Scalar::Bool(v) => Data::Bool(Arc::new(vec![v; count])),
    };
    Tensor { dims, data }
}
