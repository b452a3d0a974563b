//! Several sequences generated together: which rows a step has, and whose token each row of logits becomes.

use super::like::Like;
use super::{GenerateError, Generator, Row};
use crate::sample::Sampler;
use llamac_formats::Sizes;

/// A token that a step of a [`Batch`] chose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// Whose: the slot of its sequence.
    pub slot: usize,
    /// The token.
    pub token: u32,
}

/// Sequences that run together on one generator, each in a slot of its own.
///
/// A step is either of prompts or of tokens. While prompts wait, it takes their rows, as many as fit a chunk, several
/// prompts together; else it takes one row of every sequence: the token chosen last. Sequences of one prompt that are
/// added together share its run. Each step gives the tokens that it chose, at most one for each sequence, in the order of
/// the slots. A sequence goes on until it is removed, which leaves its place to another.
///
/// What a sequence gets does not depend on the others: not on what they hold, how many they are, or when they begin and end. How
/// numbers are rounded is chosen once, from the number of places and the chunk, and kept: where there is more than one place, steps
/// of tokens have the kernels of as many rows as there are places, steps of prompts those of a full chunk, however many rows come. So a
/// sequence may be rounded otherwise in a batch of another size, or alone, as everywhere.
///
/// ```no_run
/// use llamac_runtime::sample::{Sampler, SamplingParams};
/// use llamac_runtime::{Batch, Program};
///
/// // llamac compile examples/models/bard -o bard.llamac --slots 3
/// let program = Program::open("bard.llamac")?;
/// let tokenizer = program.tokenizer()?.ok_or("it has no tokenizer")?;
/// let mut session = program.session()?;
/// let vocab = session.vocab();
/// let sampler = |seed| Sampler::new(SamplingParams { temperature: 0.8, top_k: 40, top_p: 0.95, seed }, vocab);
///
/// let mut batch = Batch::new(&mut session, 3)?; // three at once
/// let mut texts = vec![Vec::new(); 3];
/// batch.add(&tokenizer.encode("ROMEO:", true)?, vec![sampler(1)?, sampler(2)?])?; // two from one prompt
/// batch.add(&tokenizer.encode("JULIET:", true)?, vec![sampler(3)?])?;
/// while batch.running() > 0 {
///     for chosen in batch.step()?.to_vec() {
///         texts[chosen.slot].push(chosen.token);
///         let ended = program.eos().contains(&chosen.token) || batch.is_full(chosen.slot);
///         if ended || texts[chosen.slot].len() == 40 {
///             batch.remove(chosen.slot)?; // its place is free for the next prompt
///         }
///     }
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// The same, run, is in the documentation of the crate `llamac`.
pub struct Batch<'g> {
    generator: &'g mut Generator,
    /// By slot.
    places: Vec<Place>,
    /// Slots whose prompts have not all run, in the order in which they came.
    prompts: Vec<usize>,
    rows: Vec<Row>,
    outputs: Vec<usize>,
    /// The tokens of the next step of one row each.
    pending: Vec<(usize, u32)>,
    chosen: Vec<Chosen>,
    /// Whose kernels the steps of prompts have.
    of_prompts: Like,
    /// Whose kernels the steps of one row each have.
    of_tokens: Like,
}

#[derive(Default)]
struct Place {
    state: State,
    sampler: Option<Sampler>,
}

#[derive(Default)]
enum State {
    #[default]
    Free,
    /// The prompt, and how much of it the slot holds.
    Prompt(Vec<u32>, usize),
    /// Waits for the prompt that the other slot runs.
    Follows(usize),
    /// The token chosen last, which the slot does not hold yet.
    Chose(u32),
}

impl<'g> Batch<'g> {
    /// Room for so many sequences, in the slots 0 to `places` − 1. Whatever the slots hold is forgotten.
    ///
    /// # Errors
    /// [`GenerateError::Places`] if the program has not as many slots, or no step of as many rows and outputs.
    pub fn new(generator: &'g mut Generator, places: usize) -> Result<Batch<'g>, GenerateError> {
        let most = generator.most_sequences();
        if places == 0 || places > most {
            let bounds = generator.session().program().bounds;
            let (slots, rows, outputs) = (bounds.slots, bounds.rows, bounds.outputs);
            return Err(GenerateError::Places { found: places, slots, rows, outputs });
        }
        generator.clear();
        let rows = generator.session().program().bounds.rows;
        // A sequence that has no neighbours has nothing to be protected from.
        let (of_prompts, of_tokens) = if places == 1 {
            (Like::default(), Like::default())
        } else {
            let chunk = generator.chunk();
            let of_prompts = Like { rows: chunk, outputs: places, of_a_slot: chunk };
            (of_prompts, Like { rows: places, outputs: places, of_a_slot: 1 })
        };
        Ok(Batch {
            of_prompts,
            of_tokens,
            places: (0..places).map(|_| Place::default()).collect(),
            prompts: Vec::with_capacity(places),
            rows: Vec::with_capacity(rows),
            outputs: Vec::with_capacity(places),
            pending: Vec::with_capacity(places),
            chosen: Vec::with_capacity(places),
            generator,
        })
    }

    /// The generator.
    pub fn generator(&self) -> &Generator {
        self.generator
    }

    /// Places that are free.
    pub fn free(&self) -> usize {
        self.places.len() - self.running()
    }

    /// Sequences that are there.
    pub fn running(&self) -> usize {
        self.places.iter().filter(|p| !matches!(p.state, State::Free)).count()
    }

    /// Prompts that have not run to their end: while there are any, the next step is theirs.
    pub fn waiting(&self) -> usize {
        self.prompts.len()
    }

    /// Whether the slot holds all that it can: the token chosen last is the last one.
    pub fn is_full(&self, slot: usize) -> bool {
        self.generator.len(slot).is_ok_and(|len| len >= self.generator.context())
    }

    /// Adds a sequence for each sampler, all from one prompt, which runs once; gives their slots, in the samplers' order.
    /// Nothing runs yet.
    ///
    /// # Errors
    /// [`GenerateError`]: no free place for all of them, no tokens, more than the context holds, a token past the vocabulary.
    /// Nothing is added then.
    pub fn add(&mut self, prompt: &[u32], samplers: Vec<Sampler>) -> Result<Vec<usize>, GenerateError> {
        let free: Vec<usize> = (0..self.places.len()).filter(|&s| self.is_free(s)).collect();
        if samplers.len() > free.len() {
            return Err(GenerateError::NoPlace { found: samplers.len(), free: free.len() });
        }
        let slots = &free[..samplers.len()];
        let Some(&first) = slots.first() else { return Ok(vec![]) };
        self.generator.check_room(first, prompt)?;
        for &other in &slots[1..] {
            // Of nothing yet: a program whose states cannot be forked is refused here, not in the middle of a step.
            self.generator.fork(first, other)?;
        }
        for (&slot, sampler) in slots.iter().zip(samplers) {
            self.places[slot] = Place { state: State::Follows(first), sampler: Some(sampler) };
        }
        self.places[first].state = State::Prompt(prompt.to_vec(), 0);
        self.prompts.push(first);
        Ok(slots.to_vec())
    }

    /// Ends a sequence: its slot is empty and its place free.
    ///
    /// # Errors
    /// [`GenerateError::NoSlot`] if there is no such place.
    pub fn remove(&mut self, slot: usize) -> Result<(), GenerateError> {
        let slots = self.places.len();
        let place = self.places.get_mut(slot).ok_or(GenerateError::NoSlot { slot, slots })?;
        let state = std::mem::take(place).state;
        if let State::Prompt(..) = state {
            self.prompts.retain(|&s| s != slot);
            // Another sequence of this prompt takes over where it is.
            let of_it = |p: &Place| matches!(p.state, State::Follows(of) if of == slot);
            if let Some(heir) = self.places.iter().position(of_it) {
                self.generator.fork(slot, heir)?;
                for place in self.places.iter_mut().filter(|p| of_it(p)) {
                    place.state = State::Follows(heir);
                }
                self.places[heir].state = state;
                self.prompts.push(heir);
            }
        }
        self.generator.rewind(slot, 0)
    }

    /// Runs one step: rows of the prompts that wait, or else a row of every sequence. Gives the tokens chosen.
    ///
    /// # Errors
    /// [`GenerateError::Empty`] if there is no sequence; [`GenerateError::Context`] if one of them
    /// [is full](Batch::is_full): remove it. A refused step changes nothing.
    pub fn step(&mut self) -> Result<&[Chosen], GenerateError> {
        self.chosen.clear();
        if self.prompts.is_empty() {
            self.step_tokens()?
        } else {
            self.step_prompts()?
        }
        Ok(&self.chosen)
    }

    fn is_free(&self, slot: usize) -> bool {
        matches!(self.places[slot].state, State::Free)
    }

    /// A row of every sequence.
    fn step_tokens(&mut self) -> Result<(), GenerateError> {
        self.pending.clear();
        self.pending.extend(self.places.iter().enumerate().filter_map(|(slot, place)| match place.state {
            State::Chose(token) => Some((slot, token)),
            _ => None,
        }));
        self.generator.decode_like(&self.pending, self.of_tokens)?;
        for row in 0..self.pending.len() {
            self.choose(row, self.pending[row].0);
        }
        Ok(())
    }

    /// As many rows of prompts as fit a chunk.
    fn step_prompts(&mut self) -> Result<(), GenerateError> {
        self.rows.clear();
        self.outputs.clear();
        let mut tokens = 0;
        for &slot in &self.prompts {
            let State::Prompt(prompt, held) = &self.places[slot].state else { continue };
            let room = self.generator.chunk() - self.rows.len();
            for (position, &token) in prompt.iter().enumerate().skip(*held).take(room) {
                self.rows.push(Row { slot, token, position });
                tokens = tokens.max(position + 1);
                if position + 1 == prompt.len() {
                    self.outputs.push(self.rows.len() - 1);
                }
            }
        }
        let ended = self.outputs.len();
        let unseen = Sizes { rows: self.rows.len(), outputs: 0, tokens };
        // Logits in the middle of a prompt are of no use; only a program for single rows cannot do without.
        if ended == 0 && !self.generator.session().holds(&unseen) {
            self.outputs.push(self.rows.len() - 1);
        }
        self.generator.step_rows_like(&self.rows, &self.outputs, self.of_prompts)?;
        for row in &self.rows {
            if let State::Prompt(_, held) = &mut self.places[row.slot].state {
                *held = row.position + 1;
            }
        }
        for row in 0..ended {
            let slot = self.rows[self.outputs[row]].slot;
            self.prompts.retain(|&s| s != slot);
            self.choose(row, slot);
            for other in 0..self.places.len() {
                if matches!(self.places[other].state, State::Follows(of) if of == slot) {
                    self.generator.fork(slot, other)?;
                    self.choose(row, other);
                }
            }
        }
        self.chosen.sort_unstable_by_key(|c| c.slot);
        Ok(())
    }

    /// Chooses the next token of a slot from a row of the last step's logits.
    fn choose(&mut self, row: usize, slot: usize) {
        let place = &mut self.places[slot];
        if let Some(sampler) = &mut place.sampler {
            let token = sampler.sample(self.generator.logits().row(row));
            place.state = State::Chose(token);
            self.chosen.push(Chosen { slot, token });
        }
    }
}
