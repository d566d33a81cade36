//! Namespaces: found, entered, left, removed.

mod common;

use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{self, Command};

use common::netns::TestNetns;
use podwire::netlink::Socket;
use podwire::netns::NetNs;
use podwire::sysctl::{Applied, Key, Recorder, Setting, Sysctls};
use podwire::{Error, ErrorKind};

fn links(result: Result<Socket, Error>) -> usize {
    result.expect("open").links().expect("list").len()
}

#[test]
fn work_runs_inside_and_only_inside() {
    let pod = TestNetns::new();
    let here = NetNs::current().expect("open");
    let (inside, cookie) = pod.run(|| {
        let inside = NetNs::current().expect("open");
        (inside.id(), inside.cookie().expect("a cookie"))
    });
    assert_eq!(inside, pod.netns().id());
    assert_eq!(cookie, pod.netns().cookie().expect("a cookie"));
    assert_ne!(cookie, here.cookie().expect("a cookie"));
    assert!(NetNs::current().expect("open").is_same(&here), "this thread has not moved");
    assert!(NetNs::from_pid(process::id()).expect("open").is_same(&here));
    assert!(pod.netns().try_clone().expect("duplicate").is_same(pod.netns()));
    assert_eq!(links(Socket::open_in(pod.netns())), 1, "nothing but lo");
}

#[test]
fn a_thread_that_enters_stays() {
    let pod = TestNetns::new();
    let here = NetNs::current().expect("open");
    let (before, inside) = std::thread::scope(|scope| {
        let visitor = scope.spawn(|| {
            let before = Socket::open().expect("open");
            pod.netns().enter().expect("root may");
            assert!(NetNs::current().expect("open").is_same(pod.netns()));
            (before, Socket::open().expect("open"))
        });
        visitor.join().expect("it ended")
    });
    assert!(NetNs::current().expect("open").is_same(&here), "other threads have not moved");
    let count = |socket: Socket| socket.links().expect("list").len();
    assert_eq!(count(inside), 1, "nothing but lo");
    assert_eq!(count(before), links(Socket::open()), "what was opened before belongs where it was opened");
}

#[test]
fn a_panic_inside_is_an_error_outside() {
    let pod = TestNetns::new();
    let error = pod.netns().run(|| -> u32 { panic!("the work of {} is over", 7) }).expect_err("it panicked");
    assert!(error.to_string().contains("the work panicked: the work of 7 is over"), "{error}");
    assert!(error.to_string().contains(pod.name()), "{error}");
    assert_eq!(pod.run(|| 42), 42, "the namespace is still good");
}

#[test]
fn settings_below_net_are_those_of_the_namespace() {
    let pod = TestNetns::new();
    let sysctls = Sysctls::system();
    let key = Key::new(["net", "ipv4", "conf", "lo", "proxy_arp"]).expect("valid");
    let outside = sysctls.read(&key).expect("read");
    pod.run(|| {
        let mut recorder = Recorder::default();
        let applied = recorder.set(&sysctls, &Setting::new(key.clone(), "1")).expect("set");
        assert_eq!(applied, Applied::Changed { before: "0".to_owned() });
        assert_eq!(sysctls.read(&key).expect("read"), "1");
        let refused = recorder.set(&sysctls, &Setting::new(key.clone(), "many")).expect_err("not a number");
        assert_eq!(refused.kind(), ErrorKind::InvalidInput);
        recorder.restore(&sysctls);
    });
    assert_eq!(sysctls.read(&key).expect("read"), outside);
}

#[test]
fn what_is_no_network_namespace_is_refused_by_name() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("web");
    fs::write(&file, "").expect("write");
    let fifo = directory.path().join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().expect("run mkfifo").success());
    for (path, word) in [
        (file.as_path(), "regular file"),
        (directory.path(), "directory"),
        (fifo.as_path(), "FIFO"),
        (Path::new("/proc/self/ns/mnt"), "another kind"),
    ] {
        let error = NetNs::open(path).expect_err("not a network namespace");
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        assert!(error.to_string().contains(word), "{error}");
        assert!(NetNs::remove(path).is_err());
        assert!(path.exists(), "{} was removed", path.display());
    }
    for gone in [directory.path().join("gone"), file.join("below"), "/proc/4194305/ns/net".into()] {
        assert_eq!(NetNs::open(&gone).expect_err("not there").kind(), ErrorKind::NotFound);
    }
    let file: OwnedFd = fs::File::open(&file).expect("open").into();
    assert_eq!(NetNs::try_from(file).expect_err("a file").kind(), ErrorKind::InvalidInput);
}

#[test]
fn a_name_is_made_once_and_leaves_nothing_behind() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("made/on/the/way");
    let made = NetNs::create_named(&path).expect("create");
    assert!(NetNs::open(&path).expect("open").is_same(&made));
    assert_eq!(NetNs::create_named(&path).expect_err("twice").kind(), ErrorKind::AlreadyExists);
    assert!(NetNs::open(&path).expect("still there").is_same(&made));
    NetNs::remove(&path).expect("remove");
    assert!(!path.exists());
    assert_eq!(NetNs::remove(&path).expect_err("twice").kind(), ErrorKind::NotFound);
    assert_eq!(links(Socket::open_in(&made)), 1, "a handle keeps the namespace");

    let below_a_file = directory.path().join("file");
    fs::write(&below_a_file, "").expect("write");
    assert!(NetNs::create_named(below_a_file.join("name")).is_err());
    let unnamed = NetNs::create().expect("create");
    assert!(!unnamed.is_same(&made));
    assert_eq!(unnamed.path(), Path::new(&format!("net:[{}]", unnamed.id().inode())));
    assert_eq!(links(Socket::open_in(&unnamed)), 1);
}

#[test]
fn the_guard_of_tests_cleans_up_after_a_panic() {
    let seen = std::sync::Mutex::new(None);
    let outcome = std::panic::catch_unwind(|| {
        let pod = TestNetns::new();
        *seen.lock().expect("not poisoned") = Some(pod.path().to_owned());
        panic!("in the middle of a test");
    });
    assert!(outcome.is_err());
    let path = seen.into_inner().expect("not poisoned").expect("set before the panic");
    assert!(!path.exists(), "{} is still there", path.display());
}
