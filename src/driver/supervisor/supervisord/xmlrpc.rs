//! XML-RPC as supervisord uses it: calls as text, answers as typed values. Pure: it uses no socket.
//!
//! Invalid input is an error, never a default.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use quick_xml::Reader;
use quick_xml::escape::escape;
use quick_xml::events::Event;

/// How deep values may be nested in an answer; supervisord needs four levels.
const MAX_DEPTH: usize = 32;

/// A value in a call or an answer.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Int(i64),
    Bool(bool),
    Text(String),
    Double(f64),
    Nil,
    Array(Vec<Value>),
    Struct(BTreeMap<String, Value>),
}

/// supervisord's answer to a call that it refuses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text} (fault {code})")]
pub(super) struct XmlRpcFault {
    pub(super) code: i64,
    pub(super) text: String,
}

/// Fault codes of `supervisor/xmlrpc.py`.
pub(super) mod fault {
    pub(in super::super) const SHUTDOWN: i64 = 6;
    pub(in super::super) const BAD_NAME: i64 = 10;
    pub(in super::super) const SPAWN_ERROR: i64 = 50;
    pub(in super::super) const ALREADY_STARTED: i64 = 60;
    pub(in super::super) const NOT_RUNNING: i64 = 70;
    pub(in super::super) const ALREADY_ADDED: i64 = 90;
    pub(in super::super) const STILL_RUNNING: i64 = 91;
    pub(in super::super) const CANT_REREAD: i64 = 92;
}

/// An answer that is not XML-RPC.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("its answer is not understood: {0}")]
pub(super) struct Malformed(String);

impl Value {
    /// A text.
    pub(super) fn text(text: &str) -> Self {
        Self::Text(text.to_owned())
    }

    /// The member of a struct.
    pub(super) fn get(&self, name: &str) -> Option<&Self> {
        match self {
            Self::Struct(members) => members.get(name),
            _ => None,
        }
    }

    /// The member of a struct as a number.
    pub(super) fn int(&self, name: &str) -> Option<i64> {
        match self.get(name) {
            Some(Self::Int(n)) => Some(*n),
            _ => None,
        }
    }

    /// The member of a struct as a text.
    pub(super) fn str(&self, name: &str) -> Option<&str> {
        match self.get(name) {
            Some(Self::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// One result of `system.multicall`, in which a fault is a struct like any other.
    pub(super) fn into_result(self) -> Result<Self, XmlRpcFault> {
        match (self.int("faultCode"), self.str("faultString")) {
            (Some(code), Some(text)) => Err(XmlRpcFault {
                code,
                text: text.to_owned(),
            }),
            _ => Ok(self),
        }
    }

    fn write(&self, out: &mut String) {
        // Writing to a String cannot fail.
        let _ = match self {
            Self::Int(n) => write!(out, "<value><int>{n}</int></value>"),
            Self::Bool(b) => write!(out, "<value><boolean>{}</boolean></value>", u8::from(*b)),
            Self::Text(text) => write!(
                out,
                "<value><string>{}</string></value>",
                escape(text.as_str())
            ),
            Self::Double(d) => write!(out, "<value><double>{d}</double></value>"),
            Self::Nil => write!(out, "<value><nil/></value>"),
            Self::Array(values) => {
                out.push_str("<value><array><data>");
                values.iter().for_each(|v| v.write(out));
                write!(out, "</data></array></value>")
            }
            Self::Struct(members) => {
                out.push_str("<value><struct>");
                for (name, value) in members {
                    let _ = write!(out, "<member><name>{}</name>", escape(name.as_str()));
                    value.write(out);
                    out.push_str("</member>");
                }
                write!(out, "</struct></value>")
            }
        };
    }
}

/// The text of a call.
pub(super) fn call(method: &str, params: &[Value]) -> String {
    let mut out = format!(
        "<?xml version=\"1.0\"?><methodCall><methodName>{}</methodName><params>",
        escape(method)
    );
    for param in params {
        out.push_str("<param>");
        param.write(&mut out);
        out.push_str("</param>");
    }
    out.push_str("</params></methodCall>");
    out
}

/// The parameters of `system.multicall`: calls made one after the other with nothing in between.
pub(super) fn multicall(calls: &[(&str, Vec<Value>)]) -> Value {
    let one = |(method, params): &(&str, Vec<Value>)| {
        let members = [
            ("methodName".to_owned(), Value::text(method)),
            ("params".to_owned(), Value::Array(params.clone())),
        ];
        Value::Struct(BTreeMap::from(members))
    };
    Value::Array(calls.iter().map(one).collect())
}

/// Parses an answer: a value or a fault.
pub(super) fn response(text: &str) -> Result<Result<Value, XmlRpcFault>, Malformed> {
    let mut tokens = tokens(text)?.into_iter().peekable();
    let mut parser = Parser {
        tokens: &mut tokens,
    };
    parser.open("methodResponse")?;
    if parser.is_open("fault") {
        parser.open("fault")?;
        let value = parser.value(0)?;
        parser.close("fault")?;
        return match value.into_result() {
            Err(fault) => Ok(Err(fault)),
            Ok(other) => Err(Malformed(format!("a fault without code: {other:?}"))),
        };
    }
    parser.open("params")?;
    parser.open("param")?;
    let value = parser.value(0)?;
    parser.close("param")?;
    parser.close("params")?;
    parser.close("methodResponse")?;
    Ok(Ok(value))
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Open(String),
    Close(String),
    Text(String),
}

/// Splits into tags and texts; adjoining texts are joined.
fn tokens(text: &str) -> Result<Vec<Token>, Malformed> {
    let mut reader = Reader::from_str(text);
    let mut found: Vec<Token> = Vec::new();
    let add_text = |found: &mut Vec<Token>, piece: &str| match found.last_mut() {
        Some(Token::Text(text)) => text.push_str(piece),
        _ => found.push(Token::Text(piece.to_owned())),
    };
    loop {
        match reader.read_event().map_err(|e| Malformed(e.to_string()))? {
            Event::Start(tag) => found.push(Token::Open(tag.name().as_ref().to_owned())),
            Event::End(tag) => found.push(Token::Close(tag.name().as_ref().to_owned())),
            Event::Empty(tag) => {
                let name = tag.name().as_ref().to_owned();
                found.push(Token::Open(name.clone()));
                found.push(Token::Close(name));
            }
            Event::Text(piece) => add_text(&mut found, piece.as_ref()),
            Event::CData(piece) => add_text(&mut found, piece.as_ref()),
            Event::GeneralRef(name) => add_text(&mut found, &resolve(name.as_ref())?),
            Event::Decl(_) | Event::Comment(_) | Event::PI(_) | Event::DocType(_) => {}
            Event::Eof => return Ok(found),
        }
    }
}

/// `lt` -> `<`, `#38` -> `&`.
fn resolve(name: &str) -> Result<String, Malformed> {
    match quick_xml::escape::unescape(&format!("&{name};")) {
        Ok(text) => Ok(text.into_owned()),
        Err(e) => Err(Malformed(e.to_string())),
    }
}

struct Parser<'a> {
    tokens: &'a mut std::iter::Peekable<std::vec::IntoIter<Token>>,
}

impl Parser<'_> {
    fn skip_blank(&mut self) {
        while self
            .tokens
            .next_if(|t| matches!(t, Token::Text(text) if text.trim().is_empty()))
            .is_some()
        {}
    }

    fn is_open(&mut self, name: &str) -> bool {
        self.skip_blank();
        matches!(self.tokens.peek(), Some(Token::Open(found)) if found == name)
    }

    fn demand(&mut self, wanted: &Token) -> Result<(), Malformed> {
        self.skip_blank();
        match self.tokens.next() {
            Some(found) if found == *wanted => Ok(()),
            found => Err(Malformed(format!("{wanted:?} expected, {found:?} found"))),
        }
    }

    fn open(&mut self, name: &str) -> Result<(), Malformed> {
        self.demand(&Token::Open(name.to_owned()))
    }

    fn close(&mut self, name: &str) -> Result<(), Malformed> {
        self.demand(&Token::Close(name.to_owned()))
    }

    /// Reads the text up to the closing tag of this name.
    fn text(&mut self, name: &str) -> Result<String, Malformed> {
        let text = match self.tokens.next_if(|t| matches!(t, Token::Text(_))) {
            Some(Token::Text(text)) => text,
            _ => String::new(),
        };
        self.close(name)?;
        Ok(text)
    }

    fn value(&mut self, depth: usize) -> Result<Value, Malformed> {
        if depth > MAX_DEPTH {
            return Err(Malformed("it is nested too deep".to_owned()));
        }
        self.open("value")?;
        // A value without a type is a text, including blanks.
        let bare = match self.tokens.next_if(|t| matches!(t, Token::Text(_))) {
            Some(Token::Text(text)) => text,
            _ => String::new(),
        };
        let kind = match self.tokens.next() {
            Some(Token::Close(name)) if name == "value" => return Ok(Value::Text(bare)),
            Some(Token::Open(name)) if bare.trim().is_empty() => name,
            other => return Err(Malformed(format!("a type expected, {other:?} found"))),
        };
        let value = self.typed(&kind, depth)?;
        self.close("value")?;
        Ok(value)
    }

    fn typed(&mut self, kind: &str, depth: usize) -> Result<Value, Malformed> {
        let number = |text: &str| Malformed(format!("`{text}` is no {kind}"));
        match kind {
            "int" | "i4" | "i8" => self
                .text(kind)
                .and_then(|t| t.trim().parse().map(Value::Int).map_err(|_| number(&t))),
            "double" => self
                .text(kind)
                .and_then(|t| t.trim().parse().map(Value::Double).map_err(|_| number(&t))),
            "boolean" => self.text(kind).and_then(|t| match t.trim() {
                "0" => Ok(Value::Bool(false)),
                "1" => Ok(Value::Bool(true)),
                _ => Err(number(&t)),
            }),
            "string" | "dateTime.iso8601" | "base64" => self.text(kind).map(Value::Text),
            "nil" => self.text(kind).map(|_| Value::Nil),
            "array" => self.array(depth),
            "struct" => self.members(depth),
            other => Err(Malformed(format!("unknown type `{other}`"))),
        }
    }

    fn array(&mut self, depth: usize) -> Result<Value, Malformed> {
        self.open("data")?;
        let mut values = Vec::new();
        while self.is_open("value") {
            values.push(self.value(depth + 1)?);
        }
        self.close("data")?;
        self.close("array")?;
        Ok(Value::Array(values))
    }

    fn members(&mut self, depth: usize) -> Result<Value, Malformed> {
        let mut members = BTreeMap::new();
        while self.is_open("member") {
            self.open("member")?;
            self.open("name")?;
            let name = self.text("name")?;
            members.insert(name, self.value(depth + 1)?);
            self.close("member")?;
        }
        self.close("struct")?;
        Ok(Value::Struct(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn answer(value: &str) -> String {
        format!(
            "<?xml version='1.0'?>\n<methodResponse>\n<params>\n<param>\n{value}</param>\n</params>\n</methodResponse>\n"
        )
    }

    #[test]
    fn a_call_is_escaped() {
        assert_eq!(
            call(
                "a.b",
                &[Value::text("<&\">"), Value::Bool(false), Value::Int(-3)]
            ),
            "<?xml version=\"1.0\"?><methodCall><methodName>a.b</methodName><params>\
             <param><value><string>&lt;&amp;&quot;&gt;</string></value></param>\
             <param><value><boolean>0</boolean></value></param><param><value><int>-3</int></value></param></params></methodCall>"
        );
    }

    #[test]
    fn an_answer_as_supervisord_writes_it() {
        let text = answer(
            "<value><struct>\n<member>\n<name>pid</name>\n<value><int>42</int></value>\n</member>\n\
             <member><name>spawnerr</name><value><string></string></value></member>\
             <member><name>why</name><value> a &lt;b&gt; &amp;&#38; c </value></member></struct></value>",
        );
        let value = response(&text).unwrap().unwrap();
        assert_eq!(value.int("pid"), Some(42));
        assert_eq!(value.str("spawnerr"), Some(""));
        assert_eq!(value.str("why"), Some(" a <b> && c "));
        assert_eq!(value.str("pid"), None);
    }

    #[test]
    fn faults_are_faults_also_within_a_multicall() {
        let fault = "<value><struct><member><name>faultCode</name><value><int>10</int></value></member>\
                     <member><name>faultString</name><value><string>BAD_NAME: a</string></value></member></struct></value>";
        let text = format!("<methodResponse><fault>{fault}</fault></methodResponse>");
        let expected = XmlRpcFault {
            code: 10,
            text: "BAD_NAME: a".to_owned(),
        };
        assert_eq!(response(&text).unwrap(), Err(expected.clone()));
        let text = answer(&format!(
            "<value><array><data><value><boolean>1</boolean></value>{fault}</data></array></value>"
        ));
        let Value::Array(results) = response(&text).unwrap().unwrap() else {
            panic!()
        };
        let results: Vec<_> = results.into_iter().map(Value::into_result).collect();
        assert_eq!(results, [Ok(Value::Bool(true)), Err(expected)]);
    }

    #[test]
    fn what_is_malformed_is_refused() {
        let deep = format!(
            "{}{}",
            "<value><array><data>".repeat(40),
            "</data></array></value>".repeat(40)
        );
        for bad in [
            "",
            "Not Found",
            "<html><body>error</body></html>",
            "<methodResponse>",
            "<methodResponse></methodResponse>",
            "<methodResponse><params><param></param></params></methodResponse>",
            "<methodResponse><fault><value><int>1</int></value></fault></methodResponse>",
            &answer("<value><int>x</int></value>"),
            &answer("<value><boolean>2</boolean></value>"),
            &answer("<value><thing>2</thing></value>"),
            &answer("<value>text<int>2</int></value>"),
            &answer("<value>&unknown;</value>"),
            &answer("<value><array><value/></array></value>"),
            &answer("<value><struct><member><value/></member></struct></value>"),
            &answer(&deep),
        ] {
            assert!(response(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn values_come_back_as_they_were(texts in proptest::collection::vec("[^\u{0}-\u{1f}]*", 0..4), n: i64, b: bool) {
            let members = texts.iter().enumerate().map(|(i, t)| (format!("m{i}<"), Value::text(t)));
            let value = Value::Array(vec![Value::Struct(members.collect()), Value::Int(n), Value::Bool(b), Value::Nil]);
            let mut text = String::new();
            value.write(&mut text);
            prop_assert_eq!(response(&answer(&text)).unwrap().unwrap(), value);
        }

        #[test]
        fn nothing_makes_it_panic(text in "(<(/)?(value|int|array|data|struct|member|name|params?|methodResponse|fault)/?>|[ a-z0-9&;]){0,40}") {
            let _ = response(&text);
        }
    }
}
