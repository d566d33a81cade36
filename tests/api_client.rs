//! The client against a server of our own that answers from a script.
#![cfg(feature = "api")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::IpAddr;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use podwire::api::{
    Client, EndpointChangeRequest, EndpointState, IpamRequest, LabelConfigurationSpec, MonitorFilter, MonitorType,
};
use podwire::ipam::Family;
use podwire::{Error, ErrorKind};
use tempfile::TempDir;

/// What a request looked like: its first line, its headers in lower case, its body.
struct Seen {
    line: String,
    headers: Vec<String>,
    body: String,
}

/// Serves one connection per answer, and hands back what was asked.
fn serve(answers: Vec<&'static str>) -> (TempDir, PathBuf, JoinHandle<Vec<Seen>>) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let socket = folder.path().join("agent.sock");
    let listener = UnixListener::bind(&socket).expect("a socket in an empty folder");
    let server = thread::spawn(move || {
        answers.into_iter().map(|answer| answer_one(&listener.accept().expect("a client").0, answer)).collect()
    });
    (folder, socket, server)
}

fn answer_one(stream: &UnixStream, answer: &str) -> Seen {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).expect("a request line");
    let mut headers = Vec::new();
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).expect("a header");
        let header = header.trim().to_lowercase();
        if header.is_empty() {
            break;
        }
        headers.push(header);
    }
    let length = headers.iter().find_map(|header| header.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).expect("the announced body");
    let mut stream = stream;
    stream.write_all(answer.as_bytes()).expect("the client still reads");
    Seen { line: line.trim().to_owned(), headers, body: String::from_utf8(body).expect("JSON is UTF-8") }
}

fn asked(server: JoinHandle<Vec<Seen>>) -> Seen {
    let mut seen = server.join().expect("the server saw a whole request");
    seen.pop().expect("one request")
}

/// A client of each kind: with ureq's pool, and with one connection of its own.
fn clients(socket: &Path) -> [Client; 2] {
    [Client::new(socket), Client::builder(socket).plain().build()]
}

const EMPTY: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

#[test]
fn each_call_asks_for_what_it_should() {
    type Call = fn(&Client) -> podwire::Result<()>;
    let cases: Vec<(Call, &str, &str)> = vec![
        (|client| client.delete_endpoint(&"9".parse()?), "DELETE /v1/endpoint/9 HTTP/1.1", ""),
        (|client| client.delete_endpoints_of("abc"), "DELETE /v1/endpoint HTTP/1.1", r#"{"container-id":"abc"}"#),
        (
            |client| client.regenerate_endpoint(&"ipv6:fd00::7".parse()?),
            "PATCH /v1/endpoint/ipv6:fd00::7 HTTP/1.1",
            r#"{"state":"waiting-to-regenerate","sync-build-endpoint":true}"#,
        ),
        (
            |client| {
                let spec = LabelConfigurationSpec { user: vec!["k8s:app=web".to_owned()] };
                client.change_endpoint_labels(&"pod-name:default/web".parse()?, &spec)
            },
            "PATCH /v1/endpoint/pod-name:default%2Fweb/labels HTTP/1.1",
            r#"{"user":["k8s:app=web"]}"#,
        ),
        (
            |client| client.allocate_address("10.0.0.9".parse::<IpAddr>().expect("an address"), "a/b", Some("p q")),
            "POST /v1/ipam/10.0.0.9?owner=a%2Fb&pool=p%20q HTTP/1.1",
            "",
        ),
        (
            |client| client.release_address("fd00::9".parse::<IpAddr>().expect("an address"), None),
            "DELETE /v1/ipam/fd00::9 HTTP/1.1",
            "",
        ),
    ];
    for ((call, line, body), kind) in cases.into_iter().flat_map(|case| [(case, 0), (case, 1)]) {
        let (_folder, socket, server) = serve(vec![EMPTY]);
        call(&clients(&socket)[kind]).expect("a success without a body");
        let seen = asked(server);
        assert_eq!(seen.line, line);
        assert_eq!(seen.body, body, "{line}");
        assert!(seen.headers.contains(&"host: localhost".to_owned()), "{:?}", seen.headers);
        let json = seen.headers.contains(&"content-type: application/json".to_owned());
        assert_eq!(json, !body.is_empty(), "{line}: {:?}", seen.headers);
    }
}

#[test]
fn an_allocation_may_expire() {
    let answer = "HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nContent-Length: 99\r\nConnection: close\r\n\r\n\
        {\"address\":{\"ipv4\":\"10.0.0.7\"},\"host-addressing\":{},\"ipv4\":{\"cidrs\":null,\"ip\":\"10.0.0.7\"}}         ";
    for expiring in [true, false] {
        let (_folder, socket, server) = serve(vec![answer]);
        let (owner, family) = ("ns/pod".to_owned(), Some(Family::Ipv4));
        let request = IpamRequest { owner, family, pool: None, expiring, device_settings: !expiring };
        let got = Client::new(socket).allocate(&request).expect("an allocation");
        assert_eq!((got.address.ipv4, got.device_settings), (Some([10, 0, 0, 7].into()), None));
        let seen = asked(server);
        assert_eq!(seen.line, "POST /v1/ipam?owner=ns%2Fpod&family=ipv4 HTTP/1.1");
        assert_eq!(seen.headers.contains(&"expiration: true".to_owned()), expiring, "{:?}", seen.headers);
        assert_eq!(seen.headers.contains(&"device-settings: true".to_owned()), !expiring, "{:?}", seen.headers);
    }
}

#[test]
fn chunked_answers_are_joined() {
    let answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n\
        7\r\n[{\"id\":\r\n9\r\n1135},{}]\r\n0\r\n\r\n";
    let (_folder, socket, server) = serve(vec![answer; 2]);
    for client in clients(&socket) {
        let endpoints = client.endpoints(&["k8s:app=web".to_owned()]).expect("a list");
        assert_eq!(endpoints.len(), 2);
        assert_eq!(endpoints[0].id.map(|id| id.get()), Some(1135));
    }
    for seen in server.join().expect("whole requests") {
        assert_eq!((seen.line.as_str(), seen.body.as_str()), ("GET /v1/endpoint HTTP/1.1", r#"["k8s:app=web"]"#));
    }
}

#[test]
fn refusals_are_typed() {
    let cases = [
        (
            "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            ErrorKind::NotFound,
            "PUT /v1/endpoint/cilium-local:0: not found (status 404)",
        ),
        (
            "HTTP/1.1 400 Bad Request\r\nContent-Length: 14\r\nConnection: close\r\n\r\n\"IP is in use\"",
            ErrorKind::InvalidInput,
            "PUT /v1/endpoint/cilium-local:0: IP is in use (status 400)",
        ),
        (
            "HTTP/1.1 422 Unprocessable Entity\r\nContent-Length: 50\r\nConnection: close\r\n\r\n\
             {\"code\":602,\"message\":\"state in body is required\"}",
            ErrorKind::InvalidInput,
            "PUT /v1/endpoint/cilium-local:0: state in body is required (status 422)",
        ),
        (
            "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            ErrorKind::Busy,
            "PUT /v1/endpoint/cilium-local:0: the agent is busy (status 503)",
        ),
        (
            "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 6\r\nConnection: close\r\n\r\n\"oops\"",
            ErrorKind::System,
            "PUT /v1/endpoint/cilium-local:0: oops (status 500)",
        ),
    ];
    for (answer, kind, text) in cases {
        let (_folder, socket, server) = serve(vec![answer; 2]);
        let state = Some(EndpointState::WaitingForIdentity);
        let request = EndpointChangeRequest { state, ..Default::default() };
        for client in clients(&socket) {
            let error = client.create_endpoint(&request).expect_err("a refusal");
            assert_eq!(error.kind(), kind, "{error}");
            assert_eq!(error.to_string(), text);
        }
        asked(server);
    }
}

#[test]
fn an_answer_that_is_not_json_is_corrupt() {
    for body in ["5\r\nhello\r\n0\r\n\r\n", "2\r\n12\r\n0\r\n\r\n", "0\r\n\r\n"] {
        let answer = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n{body}");
        let (_folder, socket, _server) = serve(vec![answer.leak(); 2]);
        for client in clients(&socket) {
            let error = client.config().expect_err("not a configuration");
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{body:?}: {error}");
            assert!(error.to_string().contains("GET /v1/config"), "{error}");
        }
    }
}

#[test]
fn no_agent_is_told_at_once_with_a_remedy() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let missing = folder.path().join("missing.sock");
    let stale = folder.path().join("stale.sock");
    drop(UnixListener::bind(&stale).expect("a socket in an empty folder"));
    for socket in [missing, stale] {
        let began = Instant::now();
        for client in clients(&socket) {
            let error = client.config().expect_err("nobody serves it");
            assert!(matches!(error, Error::AgentUnavailable { .. }), "{error:?}");
            assert_eq!(error.kind(), ErrorKind::AgentUnavailable);
            assert!(error.to_string().contains("is it running"), "{error}");
            assert!(error.to_string().contains(&*socket.to_string_lossy()), "{error}");
        }
        assert!(began.elapsed() < Duration::from_secs(5), "it answers at once");
        assert!(!Client::is_served(&socket, Duration::from_millis(100)));
    }
}

#[test]
fn a_socket_path_too_long_is_not_an_absent_agent() {
    let socket = format!("/tmp/{}", "x".repeat(200));
    for client in clients(Path::new(&socket)) {
        let error = client.config().expect_err("no such socket can exist");
        assert!(!matches!(error, Error::AgentUnavailable { .. }), "{error:?}");
        assert!(error.to_string().contains(&socket), "{error}");
    }
}

#[test]
fn an_agent_that_comes_up_late_is_waited_for() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let socket = folder.path().join("agent.sock");
    let client = Client::builder(&socket).wait_for_agent(Duration::from_secs(20)).build();
    let caller = thread::spawn(move || client.status(true));
    let listener = UnixListener::bind(&socket).expect("a socket in an empty folder");
    let seen = answer_one(
        &listener.accept().expect("the client comes").0,
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}",
    );
    assert!(seen.headers.contains(&"brief: true".to_owned()), "{:?}", seen.headers);
    caller.join().expect("no panic").expect("an answer");
}

#[test]
fn an_agent_that_is_silent_times_out() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let socket = folder.path().join("agent.sock");
    let listener = UnixListener::bind(&socket).expect("a socket in an empty folder");
    let builder = Client::builder(&socket).request_timeout(Some(Duration::from_millis(200)));
    for client in [builder.clone().build(), builder.plain().build()] {
        let error = client.config().expect_err("nobody answers");
        assert_eq!(error.kind(), ErrorKind::System, "{error}");
        assert!(error.to_string().contains("did not answer in time"), "{error}");
    }
    assert!(Client::is_served(&socket, Duration::from_millis(100)), "a listener counts as served");
    drop(listener);
}

/// Reads the first bytes of every request and closes the connection behind `answer`.
fn serve_hastily(answer: &'static str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let socket = folder.path().join("agent.sock");
    let listener = UnixListener::bind(&socket).expect("a socket in an empty folder");
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a client");
            stream.read_exact(&mut [0; 64]).expect("a request line");
            stream.write_all(answer.as_bytes()).expect("the client is there");
        }
    });
    (folder, socket)
}

#[test]
fn an_agent_that_stops_listening_is_heard_out() {
    let document = "x".repeat(4 << 20);
    let refusal = "HTTP/1.1 413 Payload Too Large\r\nContent-Length: 10\r\nConnection: close\r\n\r\n\"too long\"";
    let (_folder, socket) = serve_hastily(refusal);
    for client in clients(&socket) {
        let error = client.import_policy(&document).expect_err("a refusal");
        assert_eq!(error.to_string(), "PUT /v1/policy: too long (status 413)", "{client:?}");
    }
    let (_folder, socket) = serve_hastily("");
    for client in clients(&socket) {
        let error = client.import_policy(&document).expect_err("no answer");
        assert_eq!(error.kind(), ErrorKind::System, "{error}");
        assert!(error.to_string().contains("PUT /v1/policy at "), "{error}");
    }
}

#[test]
fn events_arrive_line_by_line() {
    let answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n\
        10\r\n{\"type\":\"drop\"}\n\r\n1c\r\n{\"type\":\"lost\",\"count\":3}\nno\r\n4\r\nise\n\r\n0\r\n\r\n";
    let (_folder, socket, server) = serve(vec![answer]);
    let filter = MonitorFilter {
        types: vec![MonitorType::Drop],
        related_to: vec!["7".parse().expect("an id")],
        ..Default::default()
    };
    let client = Client::builder(socket).request_timeout(None).build();
    let mut events = client.monitor(&filter).expect("a stream");
    assert_eq!(events.next().expect("an event").expect("JSON")["type"], "drop");
    assert_eq!(events.next().expect("an event").expect("JSON")["count"], 3);
    assert_eq!(events.next().expect("an event").expect_err("noise").kind(), ErrorKind::Corrupt);
    assert!(events.next().is_none());
    assert_eq!(asked(server).line, "GET /v1/monitor?type=drop&related-to=7 HTTP/1.1");
}

/// Answers one request after the other on each connection and closes it then, which it tells of.
fn serve_patiently(answers: Vec<Vec<&'static str>>) -> (TempDir, PathBuf, Receiver<usize>) {
    let (closed, ends) = channel();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let socket = folder.path().join("agent.sock");
    let listener = UnixListener::bind(&socket).expect("a socket in an empty folder");
    thread::spawn(move || {
        for answers in answers {
            let (stream, _) = listener.accept().expect("a client");
            let seen: Vec<_> = answers.into_iter().map(|answer| answer_one(&stream, answer)).collect();
            drop(stream);
            closed.send(seen.len()).expect("the test listens");
        }
    });
    (folder, socket, ends)
}

#[test]
fn a_plain_client_keeps_its_connection_as_long_as_the_agent_does() {
    const KEPT: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
    const CHUNKED: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2;x=y\r\n{}\r\n0\r\nLast: one\r\n\r\n";
    const EARLY: &str = "HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n";
    const CLOSED: &str = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{}";
    const OLD: &str = "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}";
    // the third connection is closed by the agent, without a word, while nothing is under way
    let script = vec![vec![KEPT, CHUNKED, EARLY, CLOSED], vec![OLD], vec![KEPT], vec![KEPT]];
    let (_folder, socket, ends) = serve_patiently(script);
    let client = Client::builder(socket).plain().build();
    let mut requests = Vec::new();
    for number in 0..7 {
        match number {
            2 => client.delete_endpoint(&"9".parse().expect("a name")).expect("a success without a body"),
            _ => drop(client.config().unwrap_or_else(|error| panic!("request {number}: {error}"))),
        }
        if number >= 3 {
            // until its end has arrived, a connection looks as good as ever
            requests.push(ends.recv().expect("the connection ends"));
        }
    }
    assert_eq!(requests, [4, 1, 1, 1]);
}

#[test]
fn a_plain_client_does_something_else_while_it_waits() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let socket = folder.path().join("agent.sock");
    let listener = UnixListener::bind(&socket).expect("a socket in an empty folder");
    let (sender, receiver) = channel();
    let server = thread::spawn(move || {
        let (stream, _) = listener.accept().expect("a client");
        // the whole request is there before the client does anything else, and no answer before it has
        receiver.recv().expect("the client does something");
        answer_one(&stream, "HTTP/1.1 201 Created\r\ncontent-length: 0\r\n\r\n")
    });
    let client = Client::builder(&socket).plain().build();
    let request = EndpointChangeRequest { state: Some(EndpointState::WaitingForIdentity), ..Default::default() };
    client.add_endpoint(&request, || sender.send(()).expect("the agent waits")).expect("created");
    let seen = server.join().expect("a whole request");
    assert!(seen.headers.contains(&"prefer: return=minimal".to_owned()), "{:?}", seen.headers);
    assert_eq!(seen.body, r#"{"state":"waiting-for-identity"}"#);

    let client = Client::builder(folder.path().join("nobody")).plain().build();
    let mut done = 0;
    client.add_endpoint(&request, || done += 1).expect_err("nobody serves it");
    assert_eq!(done, 0, "what nobody was asked for needs no company");
}

#[test]
fn a_plain_client_refuses_nonsense_and_streams() {
    let answers = [
        ("SSH-2.0-OpenSSH\r\n\r\n", "no status"),
        ("HTTP/1.1 2000 OK\r\n\r\n", "no status"),
        ("HTTP/1.1 200 OK\r\nnonsense\r\n\r\n", "header"),
        ("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "content-length"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n", "more than"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", "chunk"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{}\r\n0\r\n\r\n", "longer than it says"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n{}", "unexpected end"),
        ("HTTP/1.1 200 OK\r\nContent-", "unexpected end"),
        ("", "unexpected end"),
    ];
    for (answer, word) in answers {
        let (_folder, socket, server) = serve(vec![answer]);
        let error = Client::builder(socket).plain().build().config().expect_err("no answer");
        assert_eq!(error.kind(), ErrorKind::System, "{answer:?}: {error}");
        assert!(error.to_string().contains(word), "{answer:?}: {error}");
        asked(server);
    }
    let client = Client::builder("/nowhere").plain().build();
    let error = client.monitor(&MonitorFilter::default()).expect_err("it has no end");
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
}
