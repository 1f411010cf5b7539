//! Reads typed values from a TOML document and collects every fault with its line instead of
//! stopping at the first one.
//!
//! `Section::close` reports keys that were never read as unknown. This module does not know the
//! meaning of keys.

use std::cell::RefCell;
use std::collections::BTreeMap;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::fault::ConfigFault;
use super::suggest::did_you_mean;
use crate::domain::model::one_line;

/// Longest piece of the file that is quoted in a fault, in characters.
const FOUND_MAX: usize = 60;

/// The faults of one document, and the keys that were read.
#[derive(Debug)]
pub(crate) struct Faults<'t> {
    text: &'t str,
    list: RefCell<Vec<ConfigFault>>,
    asked: RefCell<Vec<String>>,
}

impl<'t> Faults<'t> {
    pub(crate) fn new(text: &'t str) -> Self {
        Self {
            text,
            list: RefCell::default(),
            asked: RefCell::default(),
        }
    }

    /// Parses the document. If the syntax is invalid, nothing is known about the rest: records the
    /// first fault (the others are usually its consequences) and returns an empty table.
    pub(crate) fn parse(&self) -> DeTable<'t> {
        match DeTable::parse(self.text) {
            Ok(table) => table.into_inner(),
            Err(error) => {
                let at = error.span().map_or(self.text.len(), |s| s.start);
                let reason = format!(
                    "not TOML: {} (line {}, column {})",
                    one_line(error.message()),
                    self.line(at),
                    self.column(at)
                );
                self.add(ConfigFault {
                    key: String::new(),
                    line: None,
                    reason,
                    found: None,
                });
                DeTable::new()
            }
        }
    }

    pub(crate) fn add(&self, fault: ConfigFault) {
        self.list.borrow_mut().push(fault);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.list.borrow().is_empty()
    }

    /// All faults in the order of the file; those without a line come last.
    pub(crate) fn into_list(self) -> Vec<ConfigFault> {
        let mut list = self.list.into_inner();
        list.sort_by_key(|f| f.line.unwrap_or(usize::MAX));
        list
    }

    /// Every key that was read, with its tables.
    #[cfg(test)]
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.borrow().clone()
    }

    fn line(&self, at: usize) -> usize {
        self.text
            .as_bytes()
            .iter()
            .take(at)
            .filter(|b| **b == b'\n')
            .count()
            + 1
    }

    fn column(&self, at: usize) -> usize {
        let before = self.text.get(..at).unwrap_or(self.text);
        before
            .rsplit('\n')
            .next()
            .unwrap_or_default()
            .chars()
            .count()
            + 1
    }

    fn about(&self, key: String, value: &Spanned<DeValue<'_>>, reason: String) {
        let found = match value.get_ref() {
            DeValue::Table(_) => "a table".to_owned(),
            _ => shorten(self.text.get(value.span()).unwrap_or_default()),
        };
        self.add(ConfigFault {
            key,
            line: Some(self.line(value.span().start)),
            reason,
            found: Some(found),
        });
    }
}

/// Shortens a piece of the file to one line of limited length.
fn shorten(text: &str) -> String {
    let text = one_line(text);
    match text.char_indices().nth(FOUND_MAX) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

/// One table of the document; a missing table reads as empty.
#[derive(Debug)]
pub(crate) struct Section<'a> {
    faults: &'a Faults<'a>,
    path: String,
    table: Option<&'a DeTable<'a>>,
    /// Offset of its beginning.
    begin: Option<usize>,
    asked: RefCell<Vec<String>>,
}

impl<'a> Section<'a> {
    /// The whole document.
    pub(crate) fn root(faults: &'a Faults<'a>, table: &'a DeTable<'a>) -> Self {
        Self {
            faults,
            path: String::new(),
            table: Some(table),
            begin: None,
            asked: RefCell::default(),
        }
    }

    /// The table in `value`, or an empty one and a fault.
    fn at(faults: &'a Faults<'a>, path: String, value: Option<&'a Spanned<DeValue<'a>>>) -> Self {
        let table = value.and_then(|v| v.get_ref().as_table());
        if let (Some(value), None) = (value, table) {
            faults.about(path.clone(), value, "must be a table".to_owned());
        }
        Self {
            faults,
            path,
            table,
            begin: value.map(|v| v.span().start),
            asked: RefCell::default(),
        }
    }

    fn key(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }

    fn get(&self, key: &str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.asked.borrow_mut().push(key.to_owned());
        self.faults.asked.borrow_mut().push(self.key(key));
        self.peek(key)
    }

    fn peek(&self, key: &str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.table?.get(key)
    }

    /// The value of `key` if it is valid; `None` if it is missing, or invalid, which is recorded as
    /// a fault.
    pub(crate) fn optional<T>(
        &self,
        key: &str,
        parse: impl FnOnce(&DeValue<'_>) -> Result<T, String>,
    ) -> Option<T> {
        let value = self.get(key)?;
        parse(value.get_ref())
            .map_err(|reason| self.faults.about(self.key(key), value, reason))
            .ok()
    }

    /// The same with a default for a missing key. An invalid value is a fault and reads as the
    /// default, so that reading can continue.
    pub(crate) fn or<T>(
        &self,
        key: &str,
        default: T,
        parse: impl FnOnce(&DeValue<'_>) -> Result<T, String>,
    ) -> T {
        self.optional(key, parse).unwrap_or(default)
    }

    /// An array. Each element is read by itself and named `key[n]` in a fault; invalid elements are
    /// left out.
    pub(crate) fn list<T>(
        &self,
        key: &str,
        mut parse: impl FnMut(&DeValue<'_>) -> Result<T, String>,
    ) -> Option<Vec<T>> {
        let value = self.get(key)?;
        let Some(items) = value.get_ref().as_array() else {
            self.faults
                .about(self.key(key), value, "must be an array".to_owned());
            return None;
        };
        let mut good = Vec::new();
        for (n, item) in items.iter().enumerate() {
            match parse(item.get_ref()) {
                Ok(one) => good.push(one),
                Err(reason) => self
                    .faults
                    .about(format!("{}[{n}]", self.key(key)), item, reason),
            }
        }
        Some(good)
    }

    /// The table below `key`.
    pub(crate) fn section(&self, key: &str) -> Section<'a> {
        Self::at(self.faults, self.key(key), self.get(key))
    }

    /// The tables of an array of tables, named `key[n]`.
    pub(crate) fn sections(&self, key: &str) -> Vec<Section<'a>> {
        let Some(value) = self.get(key) else {
            return Vec::new();
        };
        let Some(items) = value.get_ref().as_array() else {
            self.faults.about(
                self.key(key),
                value,
                format!("must be an array of tables, each written `[[{key}]]`"),
            );
            return Vec::new();
        };
        items
            .iter()
            .enumerate()
            .map(|(n, item)| Self::at(self.faults, format!("{}[{n}]", self.key(key)), Some(item)))
            .collect()
    }

    /// The tables in the table below `key`, with their names in the file.
    pub(crate) fn named_sections(&self, key: &str) -> Vec<(String, Section<'a>)> {
        let below = self.section(key);
        let names = below.names();
        names
            .into_iter()
            .map(|name| (name.clone(), below.section(&name)))
            .collect()
    }

    /// Every value of the table below `key`, with their names in the file; invalid ones are left
    /// out.
    pub(crate) fn map<T>(
        &self,
        key: &str,
        parse: impl Fn(&str, &DeValue<'_>) -> Result<T, String>,
    ) -> BTreeMap<String, T> {
        let below = self.section(key);
        let names = below.names();
        names
            .into_iter()
            .filter_map(|name| Some((name.clone(), below.optional(&name, |v| parse(&name, v))?)))
            .collect()
    }

    fn names(&self) -> Vec<String> {
        self.table
            .map(|t| t.keys().map(|k| k.get_ref().to_string()).collect())
            .unwrap_or_default()
    }

    /// Reports a fault that only the combination with other values shows: about `key` if it exists,
    /// else about the section.
    pub(crate) fn fault(&self, key: &str, reason: impl Into<String>) {
        match self.peek(key) {
            Some(value) => self.faults.about(self.key(key), value, reason.into()),
            None => self.faults.add(ConfigFault {
                key: self.key(key),
                line: self.first_line(),
                reason: reason.into(),
                found: None,
            }),
        }
    }

    /// Reports a fault of the section itself.
    pub(crate) fn fault_here(&self, reason: impl Into<String>) {
        self.faults.add(ConfigFault {
            key: self.path.clone(),
            line: self.first_line(),
            reason: reason.into(),
            found: None,
        });
    }

    fn first_line(&self) -> Option<usize> {
        self.begin.map(|at| self.faults.line(at))
    }

    /// Whether `key` is true, or missing where the default is true. A value of another type is
    /// neither: it has its own fault.
    pub(crate) fn reads_as_true(&self, key: &str) -> bool {
        self.peek(key)
            .is_none_or(|v| v.get_ref().as_bool() == Some(true))
    }

    /// Whether `key` is an empty array.
    pub(crate) fn is_empty_list(&self, key: &str) -> bool {
        self.peek(key)
            .and_then(|v| v.get_ref().as_array())
            .is_some_and(|items| items.is_empty())
    }

    /// The line of `key`; `None` if it is missing.
    pub(crate) fn line_of(&self, key: &str) -> Option<usize> {
        Some(self.faults.line(self.peek(key)?.span().start))
    }

    /// Ends the reading: every key that was not read is reported as unknown.
    pub(crate) fn close(&self) {
        let asked = self.asked.borrow();
        for key in self.table.into_iter().flat_map(|t| t.keys()) {
            let name: &str = key.get_ref();
            if !asked.iter().any(|a| a == name) {
                let near = did_you_mean(name, asked.iter().map(String::as_str));
                let known = if near.is_empty() {
                    format!("; valid keys: {}", asked.join(", "))
                } else {
                    near
                };
                let reason = format!("unknown key{known}");
                let line = Some(self.faults.line(key.span().start));
                self.faults.add(ConfigFault {
                    key: self.key(name),
                    line,
                    reason,
                    found: None,
                });
            }
        }
    }
}
