"""Faults of the network by the host: what is checked, what is dialled, what is bounded."""

from __future__ import annotations

from faults.fault import Fault

CLIENT = "src/supervm_rt/_native/network.c"
BROKER = "src/supervm_rt/transports/network/broker.py"
NETWORK = "src/supervm_rt/trust/network.py"
STRICT = "src/supervm_rt/transports/native/child/profiles/strict.profile"
CONNECT = "tests/network/test_connect.py"
BOUNDS = "tests/network/test_bounds.py"
LISTEN = "tests/network/test_listen.py"

FAULTS = (
    Fault(
        "unwanted-descriptor-is-kept",
        "a socket that nobody waits for any more stays open in the plugin's process",
        CLIENT,
        "    } else if (descriptor >= 0) {\n        close(descriptor);\n    }\n    if (count",
        "    }\n    if (count",
        ("pytest", "tests/native/test_network_threads.py"),
    ),
    Fault(
        "answer-goes-to-whoever-reads",
        "an answer is taken for the first request that waits, not for its own",
        CLIENT,
        "answer.id ? wait_of(network, answer.id) : NULL;",
        "answer.id ? wait_of(network, network->last_id) : NULL;",
        ("pytest", "tests/native/test_network_threads.py"),
    ),
    Fault(
        "name-is-resolved-twice",
        "one answer is checked, the next one is dialled",
        BROKER,
        "            allowed = self._permitted(found, request.port, name)\n",
        "            allowed = self._permitted(found, request.port, name)\n"
        "            if name and name != LOCALHOST:\n"
        "                allowed = await self._look_up(name, request.port)\n",
        ("pytest", f"{CONNECT}::test_the_address_that_was_checked_is_dialled"),
    ),
    Fault(
        "private-addresses-are-ordinary",
        "a name suffices for whatever it resolves to",
        NETWORK,
        "    return not is_special(address) and covers_name(entries, name, port)\n",
        "    return covers_name(entries, name, port)\n",
        ("pytest", f"{CONNECT}::test_a_name_that_resolves_to_a_special_address_is_refused"),
    ),
    Fault(
        "wide-range-lists-private-addresses",
        "0.0.0.0/0 lists 127.0.0.1",
        NETWORK,
        "        and (not special or _is_special_range(entry.addresses))\n",
        "        and (not special or entry.addresses.num_addresses > 0)\n",
        ("pytest", "tests/trust/test_network.py::test_what_an_entry_covers"),
    ),
    Fault(
        "unlisted-name-is-looked-up",
        "names that are not listed reach a name server, and so tell it something",
        BROKER,
        "        if why:\n            raise _Refused(Status.NOT_GRANTED, why)\n        if name == LOCALHOST:\n",
        "        if name == LOCALHOST:\n",
        ("pytest", f"{CONNECT}::test_what_is_not_listed_is_refused"),
    ),
    Fault(
        "operator-does-not-narrow",
        "what the operator wrote is not asked",
        NETWORK,
        '            lists.append((self.operator.entries.allow, "the operator\'s list does not have it"))\n',
        '            lists.append((self.manifest.allow, "the operator\'s list does not have it"))\n',
        ("pytest", f"{CONNECT}::test_the_operator_narrows_what_the_manifest_lists"),
    ),
    Fault(
        "every-request-is-taken",
        "a flood of requests is served as it comes",
        BROKER,
        "        elif self._allowance.take(1) == 0:\n",
        "        elif self._allowance.take(1) < 0:\n",
        ("pytest", f"{BOUNDS}::test_requests_a_second"),
    ),
    Fault(
        "sockets-are-not-counted",
        "a plugin may have sockets without end",
        BROKER,
        "                self._held.add(number_of(connection))\n",
        "                number_of(connection)\n",
        ("pytest", f"{BOUNDS}::test_sockets_at_once"),
    ),
    Fault(
        "earlier-life-is-served",
        "a request of another generation is answered as one of this",
        BROKER,
        "        elif request.generation != self._generation:\n",
        "        elif request.generation < self._generation:\n",
        ("pytest", f"{BOUNDS}::test_a_request_of_another_life_is_refused"),
    ),
    Fault(
        "sandboxed-socket-can-be-connected-elsewhere",
        "the profile lets a plugin call connect",
        STRICT,
        "shutdown\ngetsockname\ngetpeername\ngetsockopt a1",
        "shutdown\nconnect\ngetsockname\ngetpeername\ngetsockopt a1",
        ("pytest", "tests/network/test_escape.py::test_in_a_sandbox_it_cannot"),
    ),
    Fault(
        "every-address-can-be-listened-on",
        "network.listen is not asked",
        BROKER,
        "        why = self._grant.why_not_listened(address, request.port)\n",
        '        why = ""\n',
        ("pytest", f"{LISTEN}::test_only_what_is_listed_can_be_listened_on"),
    ),
)
