//! Tokens in, logits out: what a language model's inputs and states mean.

use super::like::Like;
use super::{Data, GenerateError, Session};
use crate::sample::Sampler;
use llamac_formats::{DType, Extent, Sizes, Sym};

/// A row of a step: one token at its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Cache slot.
    pub slot: usize,
    /// Token.
    pub token: u32,
    /// Position in the slot.
    pub position: usize,
}

/// Logits of a step, `[rows, vocab]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Logits<'a> {
    /// Row-major.
    pub data: &'a [f32],
    /// Width of a row.
    pub vocab: usize,
}

impl<'a> Logits<'a> {
    /// The number of rows.
    pub fn rows(&self) -> usize {
        self.data.len() / self.vocab.max(1)
    }

    /// One row.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn row(&self, row: usize) -> &'a [f32] {
        &self.data[row * self.vocab..(row + 1) * self.vocab]
    }
}

/// A session of a language model: it knows how many tokens each slot holds.
///
/// The model has inputs `tokens`, `positions`, `slots` (`i32[S]`) and `outputs` (`i32[R]`), and an output `logits`
/// (`f32[R, vocab]`).
///
/// ```no_run
/// use llamac_runtime::{Program, sample::{Sampler, SamplingParams}};
///
/// // llamac compile examples/models/bard -o bard.llamac --slots 2
/// let program = Program::open("bard.llamac")?;
/// let mut session = program.session()?;
/// let params = SamplingParams { temperature: 0.8, top_k: 40, top_p: 0.95, seed: 7 };
/// let mut sampler = Sampler::new(params, session.vocab())?;
///
/// session.prefill(0, &[2043, 866, 266])?; // the prompt, into slot 0
/// let first = session.sample(&mut sampler).ok_or("nothing ran")?;
/// session.fork(0, 1)?; // slot 1 holds the prompt too: only its tokens are copied
/// session.decode(&[(0, first), (1, first)])?; // one step for both
/// session.rewind(1, 3)?; // slot 1 holds the prompt alone again
/// session.decode(&[(1, 17)])?; // and goes another way
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// The same, run, is in the documentation of the crate `llamac`.
pub struct Generator {
    session: Session,
    lengths: Vec<usize>,
    /// Lengths after the step that is being put together.
    after: Vec<usize>,
    chunk: usize,
    vocab: usize,
    /// Which output the logits are.
    logits: usize,
    rows: Vec<Row>,
    wanted: Vec<usize>,
    inputs: Inputs,
}

#[derive(Default)]
struct Inputs {
    tokens: Vec<i32>,
    positions: Vec<i32>,
    slots: Vec<i32>,
    outputs: Vec<i32>,
}

impl Generator {
    /// Takes a session whose program is a language model.
    ///
    /// # Errors
    /// [`GenerateError::NoModel`] naming the first port that it has not.
    pub fn new(session: Session) -> Result<Generator, GenerateError> {
        let program = session.program();
        let lacks = |missing: String| GenerateError::NoModel { program: program.name.clone(), missing };
        let takes = [("tokens", Sym::Rows), ("positions", Sym::Rows), ("slots", Sym::Rows), ("outputs", Sym::Outputs)];
        for (name, sym) in takes {
            let has = |p: &&llamac_formats::program::PortInfo| {
                p.name == name && p.dtype == DType::I32 && p.dims == [Extent::sym(sym)]
            };
            program.inputs.iter().find(has).ok_or_else(|| lacks(format!("input \"{name}\": i32[{sym}]")))?;
        }
        if let Some(other) = program.inputs.iter().find(|p| !takes.iter().any(|(name, _)| p.name == *name)) {
            return Err(lacks(format!("a meaning of input \"{}\"", other.name)));
        }
        let width = |p: &llamac_formats::program::PortInfo| match p.dims[..] {
            [rows, width] if p.dtype == DType::F32 && rows == Extent::sym(Sym::Outputs) => width.as_constant(),
            _ => None,
        };
        let logits = program.outputs.iter().position(|p| p.name == "logits" && width(p).is_some());
        let logits = logits.ok_or_else(|| lacks("output \"logits\": f32[R, vocab]".to_owned()))?;
        let vocab = width(&program.outputs[logits]).unwrap_or(0) as usize;
        let bounds = program.bounds;
        let ids = |n| Vec::with_capacity(n);
        let inputs = Inputs {
            tokens: ids(bounds.rows),
            positions: ids(bounds.rows),
            slots: ids(bounds.rows),
            outputs: ids(bounds.outputs),
        };
        Ok(Generator {
            lengths: vec![0; bounds.slots],
            after: vec![0; bounds.slots],
            chunk: bounds.rows,
            vocab,
            logits,
            rows: Vec::with_capacity(bounds.rows),
            wanted: Vec::with_capacity(bounds.outputs),
            inputs,
            session,
        })
    }

    /// The session, to profile it.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// The session, to profile it.
    pub fn session_mut(&mut self) -> &mut Session {
        &mut self.session
    }

    /// Width of a row of logits.
    pub fn vocab(&self) -> usize {
        self.vocab
    }

    /// Tokens below this may be given.
    pub fn tokens(&self) -> usize {
        let port = self.session.program().inputs.iter().find(|p| p.name == "tokens");
        port.and_then(|p| p.limit).or(self.session.program().vocab).unwrap_or(self.vocab)
    }

    /// The most tokens of a slot.
    pub fn context(&self) -> usize {
        self.session.program().bounds.tokens
    }

    /// The number of slots.
    pub fn slots(&self) -> usize {
        self.lengths.len()
    }

    /// The most sequences that a step takes together: as many as there are slots, rows of a step and outputs of one.
    pub fn most_sequences(&self) -> usize {
        let bounds = self.session.program().bounds;
        bounds.slots.min(bounds.rows).min(bounds.outputs)
    }

    /// Rows of a step of [`Generator::prefill`].
    pub fn chunk(&self) -> usize {
        self.chunk
    }

    /// Takes smaller chunks: 1 to the program's bound, else the nearest of these.
    pub fn set_chunk(&mut self, chunk: usize) {
        self.chunk = chunk.clamp(1, self.session.program().bounds.rows);
    }

    /// Tokens that a slot holds.
    ///
    /// # Errors
    /// [`GenerateError::NoSlot`].
    pub fn len(&self, slot: usize) -> Result<usize, GenerateError> {
        self.lengths.get(slot).copied().ok_or(GenerateError::NoSlot { slot, slots: self.slots() })
    }

    /// Forgets all but the first `len` tokens of a slot.
    ///
    /// # Errors
    /// [`GenerateError::NoSlot`]; [`GenerateError::Rewind`] if it holds fewer.
    pub fn rewind(&mut self, slot: usize, len: usize) -> Result<(), GenerateError> {
        let held = self.len(slot)?;
        if len > held {
            return Err(GenerateError::Rewind { slot, held, to: len });
        }
        self.lengths[slot] = len;
        Ok(())
    }

    /// Forgets all tokens of all slots.
    pub fn clear(&mut self) {
        self.lengths.fill(0);
    }

    /// Makes slot `to` hold what slot `from` holds. It copies the states of the tokens held and nothing else, without a step.
    ///
    /// # Errors
    /// [`GenerateError::NoSlot`], [`GenerateError::NotBySlot`].
    pub fn fork(&mut self, from: usize, to: usize) -> Result<(), GenerateError> {
        let len = self.len(from)?;
        self.len(to)?;
        if from != to {
            self.session.copy_slot(from, to, len)?;
            self.lengths[to] = len;
        }
        Ok(())
    }

    fn check_tokens(&self, tokens: impl Iterator<Item = u32>) -> Result<(), GenerateError> {
        let vocab = self.tokens();
        for (at, token) in tokens.enumerate() {
            if token as usize >= vocab {
                return Err(GenerateError::NoToken { token, at, vocab });
            }
        }
        Ok(())
    }

    /// Checks that a slot can take these tokens; gives what it holds.
    pub(super) fn check_room(&self, slot: usize, tokens: &[u32]) -> Result<usize, GenerateError> {
        let held = self.len(slot)?;
        if tokens.is_empty() {
            return Err(GenerateError::Empty);
        }
        let (needed, context) = (held.saturating_add(tokens.len()), self.context());
        if needed > context {
            return Err(GenerateError::Context { slot, needed, context });
        }
        self.check_tokens(tokens.iter().copied())?;
        Ok(held)
    }

    /// Begins a step: no rows in `self.rows`, none wanted in `self.wanted`.
    fn begin(&mut self) {
        self.rows.clear();
        self.wanted.clear();
    }

    /// Runs `self.rows`, wanting `self.wanted`.
    fn run(&mut self) -> Result<(), GenerateError> {
        self.run_like(Like::default())
    }

    /// As [`Generator::run`], with the kernels that a step of other sizes has.
    fn run_like(&mut self, like: Like) -> Result<(), GenerateError> {
        let bounds = self.session.program().bounds;
        if self.rows.is_empty() {
            return Err(GenerateError::Empty);
        }
        if self.rows.len() > bounds.rows || self.wanted.len() > bounds.outputs {
            return Err(GenerateError::Step(super::StepError::TooLarge {
                rows: self.rows.len(),
                outputs: self.wanted.len(),
                tokens: 1,
                most_rows: bounds.rows,
                most_outputs: bounds.outputs,
                most_tokens: bounds.tokens,
            }));
        }
        self.check_tokens(self.rows.iter().map(|r| r.token))?;
        self.after.copy_from_slice(&self.lengths);
        for (i, row) in self.rows.iter().enumerate() {
            let Row { slot, position, .. } = *row;
            let held = *self.after.get(slot).ok_or(GenerateError::NoSlot { slot, slots: bounds.slots })?;
            if position >= bounds.tokens {
                let needed = position.saturating_add(1);
                return Err(GenerateError::Context { slot, needed, context: bounds.tokens });
            }
            if position > held {
                return Err(GenerateError::Gap { row: i, slot, found: position, held });
            }
            self.after[slot] = position + 1;
        }
        let Inputs { tokens, positions, slots, outputs } = &mut self.inputs;
        for list in [&mut *tokens, &mut *positions, &mut *slots, &mut *outputs] {
            list.clear();
        }
        for row in &self.rows {
            // All are below bounds that fit an i32: tokens, positions and slots were checked, the program's bounds too.
            tokens.push(row.token as i32);
            positions.push(row.position as i32);
            slots.push(row.slot as i32);
        }
        outputs.extend(self.wanted.iter().map(|row| i32::try_from(*row).unwrap_or(i32::MAX)));
        let inputs = [
            ("tokens", Data::I32(tokens)),
            ("positions", Data::I32(positions)),
            ("slots", Data::I32(slots)),
            ("outputs", Data::I32(outputs)),
        ];
        self.session.step_like(&inputs, like)?;
        self.lengths.copy_from_slice(&self.after);
        Ok(())
    }

    /// The logits of the last step; empty before the first.
    pub fn logits(&self) -> Logits<'_> {
        let data = self.session.outputs().and_then(|o| o.at(self.logits).f32()).unwrap_or(&[]);
        Logits { data, vocab: self.vocab }
    }

    /// Chooses the next token from the last row of the last step's logits; `None` before the first step.
    ///
    /// # Panics
    /// If the sampler was made for fewer tokens.
    pub fn sample(&self, sampler: &mut Sampler) -> Option<u32> {
        let logits = self.logits();
        let last = logits.rows().checked_sub(1)?;
        Some(sampler.sample(logits.row(last)))
    }

    /// Appends tokens to a slot, a chunk at a time; gives the logits after the last one.
    ///
    /// # Errors
    /// [`GenerateError`]: no such slot, no tokens, more than the context holds, a token past the vocabulary. Nothing has
    /// run then.
    pub fn prefill(&mut self, slot: usize, tokens: &[u32]) -> Result<&[f32], GenerateError> {
        let mut position = self.check_room(slot, tokens)?;
        let mut chunks = tokens.chunks(self.chunk).peekable();
        while let Some(chunk) = chunks.next() {
            self.begin();
            self.rows.extend(chunk.iter().enumerate().map(|(i, token)| Row {
                slot,
                token: *token,
                position: position + i,
            }));
            position += chunk.len();
            let unseen = Sizes { rows: chunk.len(), outputs: 0, tokens: position };
            // Logits in the middle of a prompt are of no use; only a program for single rows cannot do without.
            if chunks.peek().is_none() || !self.session.holds(&unseen) {
                self.wanted.push(chunk.len() - 1);
            }
            self.run()?;
        }
        Ok(self.logits().data)
    }

    /// Appends one token to each of several slots; row `i` of the logits is that of `batch[i]`.
    ///
    /// # Errors
    /// [`GenerateError`]; more slots than the program has rows or outputs are refused.
    pub fn decode(&mut self, batch: &[(usize, u32)]) -> Result<Logits<'_>, GenerateError> {
        self.decode_like(batch, Like::default())
    }

    /// As [`Generator::decode`], with the kernels that a step of other sizes has.
    pub(super) fn decode_like(&mut self, batch: &[(usize, u32)], like: Like) -> Result<Logits<'_>, GenerateError> {
        let bounds = self.session.program().bounds;
        self.begin();
        if batch.len() > bounds.rows.min(bounds.outputs) {
            return Err(GenerateError::Step(super::StepError::TooLarge {
                rows: batch.len(),
                outputs: batch.len(),
                tokens: 1,
                most_rows: bounds.rows,
                most_outputs: bounds.outputs,
                most_tokens: bounds.tokens,
            }));
        }
        for (i, (slot, token)) in batch.iter().enumerate() {
            // A slot that occurs twice takes both tokens, one after the other.
            let position = match self.rows.last() {
                Some(last) if last.slot == *slot => last.position + 1,
                _ => self.len(*slot)?,
            };
            self.rows.push(Row { slot: *slot, token: *token, position });
            self.wanted.push(i);
        }
        self.run_like(like)?;
        Ok(self.logits())
    }

    /// Runs any rows in one step: prompts of some slots beside single tokens of others. Rows of a slot must lie together
    /// and follow each other; the first may lie before the slot's end, which rewinds it. Row `i` of the logits is that of
    /// `rows[outputs[i]]`.
    ///
    /// # Errors
    /// [`GenerateError`].
    pub fn step_rows(&mut self, rows: &[Row], outputs: &[usize]) -> Result<Logits<'_>, GenerateError> {
        self.step_rows_like(rows, outputs, Like::default())
    }

    /// As [`Generator::step_rows`], with the kernels that a step of other sizes has.
    pub(super) fn step_rows_like(
        &mut self,
        rows: &[Row],
        outputs: &[usize],
        like: Like,
    ) -> Result<Logits<'_>, GenerateError> {
        let bounds = self.session.program().bounds;
        self.begin();
        // One more than fits is enough to be refused, and needs no large allocation.
        self.rows.extend_from_slice(&rows[..rows.len().min(bounds.rows + 1)]);
        self.wanted.extend_from_slice(&outputs[..outputs.len().min(bounds.outputs + 1)]);
        self.run_like(like)?;
        Ok(self.logits())
    }

    /// Appends tokens to a slot and shows the logits after each of them: `each(i, logits)` for token `i`. Runs as many rows
    /// at a time as the program has outputs.
    ///
    /// # Errors
    /// [`GenerateError`], as for [`Generator::prefill`].
    pub fn score(
        &mut self,
        slot: usize,
        tokens: &[u32],
        mut each: impl FnMut(usize, &[f32]),
    ) -> Result<(), GenerateError> {
        let held = self.check_room(slot, tokens)?;
        let size = self.chunk.min(self.session.program().bounds.outputs);
        for (chunk, part) in tokens.chunks(size).enumerate() {
            let first = chunk * size;
            self.begin();
            for (i, token) in part.iter().enumerate() {
                self.rows.push(Row { slot, token: *token, position: held + first + i });
                self.wanted.push(i);
            }
            self.run()?;
            let logits = self.logits();
            for row in 0..part.len() {
                each(first + row, logits.row(row));
            }
        }
        Ok(())
    }
}
