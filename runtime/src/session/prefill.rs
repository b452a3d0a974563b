//! A prompt in chunks, which may be stopped between them.

use super::{GenerateError, Generator, Row};
use llamac_formats::Sizes;

impl Generator {
    /// [`Generator::prefill`], asking after each chunk but the last whether to go on. Where it was stopped, `None`: the slot
    /// holds the chunks that ran.
    ///
    /// # Errors
    /// As [`Generator::prefill`].
    pub fn prefill_while(
        &mut self,
        slot: usize,
        tokens: &[u32],
        mut go_on: impl FnMut() -> bool,
    ) -> Result<Option<&[f32]>, GenerateError> {
        let mut position = self.check_room(slot, tokens)?;
        let end = position + tokens.len();
        let mut rows = Vec::with_capacity(self.chunk().min(tokens.len()));
        for chunk in tokens.chunks(self.chunk()) {
            rows.clear();
            rows.extend((position..).zip(chunk).map(|(position, &token)| Row { slot, token, position }));
            position += chunk.len();
            let unseen = Sizes { rows: chunk.len(), outputs: 0, tokens: position };
            // Logits in the middle of a prompt are of no use; only a program for single rows cannot do without.
            let wanted: &[usize] = match position == end || !self.session().holds(&unseen) {
                true => &[chunk.len() - 1],
                false => &[],
            };
            self.step_rows(&rows, wanted)?;
            if position < end && !go_on() {
                return Ok(None);
            }
        }
        Ok(Some(self.logits().data))
    }
}
