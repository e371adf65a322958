"""A mail program with a cache, after RFC 7162: learns a mailbox from one server and goes on with another.

    qresync.py learn  HOST PORT USER PASSWORD STATE    fills STATE, downloading every message
    qresync.py resume HOST PORT USER PASSWORD STATE    says what it would have to download or change
"""

import imaplib
import json
import re
import sys

imaplib.Commands["ENABLE"] = ("AUTH",)


def numbers(words):
    """Expands `1:3,7`."""
    for part in filter(None, words.split(",")):
        low, _, high = part.partition(":")
        yield from range(int(low), int(high or low) + 1)


def log_in(host, port, user, password):
    server = imaplib.IMAP4(host, int(port))
    server.login(user, password)
    server.enable("QRESYNC")
    return server


def folders(server):
    for line in server.list()[1]:
        if isinstance(line, tuple):
            flags, name = line[0].decode(), line[1].decode()
        else:
            flags, name = line.decode(), re.search(r'"." (.*)$', line.decode()).group(1)
            if name.startswith('"'):
                name = re.sub(r"\\(.)", r"\1", name[1:-1])
        if "\\Noselect" not in flags and "\\NonExistent" not in flags:
            yield name


def quoted(name):
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'


def code(server, name):
    answer = server.response(name)[1]
    return int(answer[0]) if answer and answer[0] else 0


def flags_of(line):
    found = re.search(r"FLAGS \(([^)]*)\)", line).group(1).lower().split()
    return sorted(flag for flag in found if flag != "\\recent")


def learn(server):
    state = {}
    for name in folders(server):
        server.untagged_responses.clear()
        assert server.select(quoted(name), readonly=True)[0] == "OK"
        state[name] = {
            "uid_validity": code(server, "UIDVALIDITY"),
            "uid_next": code(server, "UIDNEXT"),
            "mod_seq": code(server, "HIGHESTMODSEQ"),
            "messages": {},
        }
        for item in server.uid("FETCH", "1:*", "(FLAGS BODY.PEEK[])")[1]:
            if isinstance(item, tuple):
                line = item[0].decode()
                uid = re.search(r"UID (\d+)", line).group(1)
                state[name]["messages"][uid] = flags_of(line)
    return state


def resume(server, state):
    report = {"folders": 0, "known": 0, "downloads": 0, "flag_changes": 0, "vanished": 0, "refused": []}
    there = list(folders(server))
    for name in set(state) ^ set(there):
        report["refused"].append(f"{name}: on one side only")
    for name in there:
        known = state.get(name)
        if known is None:
            continue
        report["folders"] += 1
        report["known"] += len(known["messages"])
        since = f"({known['uid_validity']} {known['mod_seq']})"
        server.untagged_responses.clear()
        assert server._simple_command("EXAMINE", quoted(name), f"(QRESYNC {since})")[0] == "OK"
        server.state, server.is_readonly = "SELECTED", True
        exists = int(server.untagged_responses["EXISTS"][-1])
        if code(server, "UIDVALIDITY") != known["uid_validity"]:
            report["refused"].append(f"{name}: another UIDVALIDITY")
            report["downloads"] += exists
            continue
        if code(server, "UIDNEXT") < known["uid_next"]:
            report["refused"].append(f"{name}: UIDNEXT went back")
        if code(server, "HIGHESTMODSEQ") < known["mod_seq"]:
            report["refused"].append(f"{name}: HIGHESTMODSEQ went back")
        told, gone, flags = set(), set(), dict(known["messages"])
        for line in server.untagged_responses.get("VANISHED", []):
            uids = numbers(line.decode().replace("(EARLIER)", "").strip())
            gone |= {str(uid) for uid in uids} & set(known["messages"])
        for item in server.untagged_responses.get("FETCH", []):
            line = (item[0] if isinstance(item, tuple) else item).decode()
            uid = re.search(r"UID (\d+)", line).group(1)
            flags[uid] = flags_of(line)
            if uid not in known["messages"]:
                told.add(uid)
            elif flags_of(line) != known["messages"][uid]:
                report["flag_changes"] += 1
        report["downloads"] += len(told)
        report["vanished"] += len(gone)
        # What it was not told of, it would never see, or keep for ever.
        listed = {}
        for item in server.uid("FETCH", "1:*", "(FLAGS)")[1]:
            if item:
                listed[re.search(r"UID (\d+)", item.decode()).group(1)] = flags_of(item.decode())
        if any(flags.get(uid) != now for uid, now in listed.items()):
            report["refused"].append(f"{name}: not told of every change of flags")
        listed = set(listed)
        if listed - set(known["messages"]) != told or set(known["messages"]) - listed != gone:
            report["refused"].append(f"{name}: not told of every change")
    return report


def main():
    verb, host, port, user, password, path = sys.argv[1:]
    server = log_in(host, port, user, password)
    if verb == "learn":
        with open(path, "w", encoding="utf-8") as file:
            json.dump(learn(server), file)
    else:
        with open(path, encoding="utf-8") as file:
            print(json.dumps(resume(server, json.load(file))))
    server.logout()


main()
