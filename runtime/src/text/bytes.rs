//! Bytes that become text.

/// Appends a run of fallback bytes, which is valid or invalid as a whole, and empties it.
pub(super) fn append_run(run: &mut Vec<u8>, text: &mut String) {
    match str::from_utf8(run) {
        Ok(valid) => text.push_str(valid),
        Err(_) => run.iter().for_each(|_| text.push(char::REPLACEMENT_CHARACTER)),
    }
    run.clear();
}

/// Moves what can no longer change from `pending` to `text`: complete characters, and U+FFFD for bytes that no later
/// byte can complete. At most three bytes stay.
pub(super) fn take_complete(pending: &mut Vec<u8>, text: &mut String) {
    let mut rest = pending.as_slice();
    loop {
        match str::from_utf8(rest) {
            Ok(all) => {
                text.push_str(all);
                rest = &[];
                break;
            }
            Err(error) => {
                let (valid, after) = rest.split_at(error.valid_up_to());
                text.push_str(&String::from_utf8_lossy(valid));
                rest = after;
                match error.error_len() {
                    Some(length) => {
                        text.push(char::REPLACEMENT_CHARACTER);
                        rest = &rest[length..];
                    }
                    None => break,
                }
            }
        }
    }
    let taken = pending.len() - rest.len();
    pending.drain(..taken);
}
