//! Names within an archive: relative, plain, ascending, below folders that came before.

/// A name's most bytes.
pub(super) const MAX_NAME_BYTES: usize = 1024;

/// Keeps the order of names; its memory is one path.
#[derive(Debug, Default)]
pub(super) struct Order {
    last: Vec<String>,
    /// How many of `last`'s parts are folders that were entered.
    folders: usize,
}

impl Order {
    /// Takes the next name.
    ///
    /// # Errors
    /// What is wrong with it, for a person.
    pub(super) fn take(&mut self, name: &str, is_folder: bool) -> Result<(), String> {
        check(name)?;
        let parts: Vec<String> = name.split('/').map(str::to_owned).collect();
        if !self.last.is_empty() && parts <= self.last {
            return Err(format!("{}: named twice or out of order", name.escape_debug()));
        }
        let above = parts.len() - 1;
        if self.folders < above || self.last[..above] != parts[..above] {
            return Err(format!("{}: its folder is not in the archive before it", name.escape_debug()));
        }
        self.folders = if is_folder { parts.len() } else { above };
        self.last = parts;
        Ok(())
    }
}

/// Whether a name is plain and relative.
pub(super) fn check(name: &str) -> Result<(), String> {
    let wrong = |why: &str| Err(format!("{}: {why}", name.escape_debug()));
    if name.is_empty() || name.len() > MAX_NAME_BYTES {
        return wrong("a name has 1 to 1024 bytes");
    }
    if name.starts_with('/') {
        return wrong("absolute names are not accepted");
    }
    if name.chars().any(char::is_control) {
        return wrong("control characters are not accepted in names");
    }
    if name.split('/').any(|part| matches!(part, "" | "." | "..") || part.len() > 255) {
        return wrong("empty parts, `.`, `..` and parts above 255 bytes are not accepted");
    }
    Ok(())
}
