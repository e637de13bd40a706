//! Reads one value in EDN: as much of it as histories use, and whatever else may stand beside that.
//!
//! It refuses values that are nested too deep, and knows nothing of histories.

/// How deep values may be nested.
const DEPTH_MAX: usize = 16;

/// A value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Edn {
    Nil,
    Integer(i64),
    Keyword(String),
    /// A string, or a symbol.
    Text(String),
    /// A vector, a list or a set.
    Several(Vec<Self>),
    Map(Vec<(Self, Self)>),
}

impl Edn {
    /// What a map has under a keyword.
    pub(super) fn get(&self, name: &str) -> Option<&Self> {
        let Self::Map(entries) = self else { return None };
        entries.iter().find(|(key, _)| matches!(key, Self::Keyword(word) if word == name)).map(|(_, value)| value)
    }

    /// A number that is not negative.
    pub(super) fn number(&self) -> Option<u64> {
        if let Self::Integer(number) = self { u64::try_from(*number).ok() } else { None }
    }

    /// A keyword.
    pub(super) fn keyword(&self) -> Option<&str> {
        if let Self::Keyword(word) = self { Some(word) } else { None }
    }

    /// The values of a vector.
    pub(super) fn several(&self) -> Option<&[Self]> {
        if let Self::Several(values) = self { Some(values) } else { None }
    }
}

/// Reads the only value of a text; `None` where there is none but comments.
pub(super) fn read(text: &str) -> Result<Option<Edn>, String> {
    let mut reader = Reader { rest: text };
    reader.skip();
    if reader.rest.is_empty() {
        return Ok(None);
    }
    let value = reader.value(0)?;
    reader.skip();
    if reader.rest.is_empty() { Ok(Some(value)) } else { Err(format!("`{}` stands after the value", reader.shown())) }
}

struct Reader<'text> {
    rest: &'text str,
}

impl Reader<'_> {
    /// Passes over what separates values.
    fn skip(&mut self) {
        loop {
            self.rest = self.rest.trim_start_matches(|sign: char| sign.is_whitespace() || sign == ',');
            if !self.rest.starts_with(';') {
                return;
            }
            self.rest = self.rest.split_once('\n').map_or("", |(_, rest)| rest);
        }
    }

    /// The beginning of what is left, for people.
    fn shown(&self) -> String {
        self.rest.chars().take(20).collect()
    }

    fn value(&mut self, depth: usize) -> Result<Edn, String> {
        if depth >= DEPTH_MAX {
            return Err("values are nested too deep".to_owned());
        }
        // The rest of a tagged value is the value.
        for (begins, end) in [("[", ']'), ("(", ')'), ("#{", '}')] {
            if let Some(rest) = self.rest.strip_prefix(begins) {
                self.rest = rest;
                return Ok(Edn::Several(self.until(end, depth)?));
            }
        }
        if let Some(rest) = self.rest.strip_prefix('{') {
            self.rest = rest;
            let mut values = self.until('}', depth)?.into_iter();
            let mut entries = Vec::new();
            while let Some(key) = values.next() {
                entries.push((key, values.next().ok_or("a map ends with a key")?));
            }
            return Ok(Edn::Map(entries));
        }
        if let Some(rest) = self.rest.strip_prefix('"') {
            return self.string(rest);
        }
        self.word(depth)
    }

    fn until(&mut self, end: char, depth: usize) -> Result<Vec<Edn>, String> {
        let mut values = Vec::new();
        loop {
            self.skip();
            if let Some(rest) = self.rest.strip_prefix(end) {
                self.rest = rest;
                return Ok(values);
            }
            if self.rest.is_empty() {
                return Err(format!("`{end}` is missing"));
            }
            values.push(self.value(depth + 1)?);
        }
    }

    fn string<'text>(&mut self, text: &'text str) -> Result<Edn, String>
    where
        Self: 'text,
    {
        let mut escaped = false;
        let closes = |(_, sign): &(usize, char)| {
            let closes = *sign == '"' && !escaped;
            escaped = *sign == '\\' && !escaped;
            closes
        };
        let (end, _) = text.char_indices().find(closes).ok_or("a string does not end")?;
        let value = Edn::Text(text[..end].to_owned());
        let passed = self.rest.len() - text.len() + end + 1;
        self.rest = &self.rest[passed..];
        Ok(value)
    }

    fn word(&mut self, depth: usize) -> Result<Edn, String> {
        let ends = |sign: char| sign.is_whitespace() || ",;[](){}\"".contains(sign);
        let end = self.rest.find(ends).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        if word.is_empty() {
            return Err(format!("`{}` is no value", self.shown()));
        }
        self.rest = rest;
        if word.starts_with('#') {
            // A tag: what it tags is the value.
            self.skip();
            return self.value(depth + 1);
        }
        if let Some(name) = word.strip_prefix(':') {
            return Ok(Edn::Keyword(name.to_owned()));
        }
        if word == "nil" {
            return Ok(Edn::Nil);
        }
        Ok(word.parse().map_or_else(|_| Edn::Text(word.to_owned()), Edn::Integer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_all_kinds_are_read() {
        let read =
            read("#jepsen.history.Op{:index 3, :value [[:append 5 -1] nil], :error \"a \\\" b\" :x (sym #{1})} ; end");
        let value = read.unwrap().unwrap();
        assert_eq!(value.get("index").and_then(Edn::number), Some(3));
        let append = Edn::Several(vec![Edn::Keyword("append".into()), Edn::Integer(5), Edn::Integer(-1)]);
        assert_eq!(value.get("value").and_then(Edn::several), Some([append, Edn::Nil].as_slice()));
        assert_eq!(value.get("error"), Some(&Edn::Text("a \\\" b".into())));
        let set = Edn::Several(vec![Edn::Integer(1)]);
        assert_eq!(value.get("x"), Some(&Edn::Several(vec![Edn::Text("sym".into()), set])));
        assert_eq!(value.get("none"), None);
    }

    #[test]
    fn nothing_and_rubbish_are_told_apart() {
        assert_eq!(read(" ; only a comment").unwrap(), None);
        for bad in ["{:a", "{:a}", "[1", "]", "1 2", "\"open", "#", &"[".repeat(100_000)] {
            assert!(read(bad).is_err(), "{bad:.20}");
        }
    }
}
