from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexlet_functions.grants.outwards import HostPattern, Url, UrlRefused, plain, refused_address


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("https://api.example.com/a?b=c", "https://api.example.com/a?b=c"),
        ("HTTPS://API.Example.COM./a", "https://api.example.com/a"),
        ("http://api.example.com", "http://api.example.com/"),
        ("http://api.example.com?q", "http://api.example.com/?q"),
        ("http://api.example.com:80/", "http://api.example.com/"),
        ("http://api.example.com:/", "http://api.example.com/"),
        ("https://api.example.com:80/", "https://api.example.com:80/"),
        ("https://api.example.com/a#part", "https://api.example.com/a"),
        ("https://bücher.example/straße?q=ü", "https://xn--bcher-kva.example/stra%C3%9Fe?q=%C3%BC"),
        ("https://BÜCHER.example。com/", "https://xn--bcher-kva.example.com/"),
        ('https://api.example.com/{id}|"x"', "https://api.example.com/%7Bid%7D%7C%22x%22"),
        ("https://api.example.com/50%25%zz", "https://api.example.com/50%25%zz"),
        ("http://192.0.2.1:8080/", "http://192.0.2.1:8080/"),
        ("http://[2001:DB8:0::1]/", "http://[2001:db8::1]/"),
        ("http://[::ffff:10.0.0.1]/", "http://10.0.0.1/"),
        ("http://_service.example.com/", "http://_service.example.com/"),
    ],
)
def test_a_url_has_one_form(text: str, url: str) -> None:
    parsed = Url.parse(text)
    assert str(parsed) == url
    assert Url.parse(url) == parsed


@given(st.text(max_size=60) | st.from_regex(r"https?://[ -~]{0,40}", fullmatch=True))
def test_a_url_is_refused_or_in_order_whatever_it_is(text: str) -> None:
    try:
        url = Url.parse(text)
    except UrlRefused:
        return
    assert url.scheme in ("http", "https")
    assert 1 <= url.port <= 65535
    assert str(url).isascii()
    assert str(url).isprintable()
    assert not set(str(url)) & set(' \\"<>@') - set(url.target)
    assert not set(url.target) & set(' \\"<>#\r\n')
    assert Url.parse(str(url)) == url


@given(st.text(max_size=60))
def test_where_a_redirect_leads_is_refused_or_in_order(location: str) -> None:
    try:
        url = Url.parse("https://api.example.com/a/b?c").follow(location)
    except UrlRefused:
        return
    assert Url.parse(str(url)) == url


@pytest.mark.parametrize(
    ("location", "goal"),
    [
        ("/other", "https://api.example.com/other"),
        ("other?x=1", "https://api.example.com/a/other?x=1"),
        ("../up", "https://api.example.com/up"),
        ("?x=1", "https://api.example.com/a/b?x=1"),
        ("//other.example.com/", "https://other.example.com/"),
        ("http://other.example.com", "http://other.example.com/"),
        ("/ü#part", "https://api.example.com/%C3%BC"),
    ],
)
def test_a_redirect_is_followed_from_where_it_was_said(location: str, goal: str) -> None:
    assert str(Url.parse("https://api.example.com/a/b?c").follow(location)) == goal


@pytest.mark.parametrize(
    ("pattern", "granted", "refused"),
    [
        (
            "api.example.com",
            ["http://api.example.com", "https://API.example.com.", "https://api.example.com:443"],
            [
                "https://example.com",
                "https://x.api.example.com",
                "https://api.example.com:8443",
                "http://api.example.com:443",
                "https://api.example.com.evil.test",
                "https://evilapi.example.com",
            ],
        ),
        (
            "*.example.com",
            ["https://api.example.com", "https://a.b.example.com"],
            [
                "https://example.com",
                "https://evilexample.com",
                "https://api.example.com:8443",
                "https://10.example.net",
            ],
        ),
        (
            "api.example.com:8443",
            ["https://api.example.com:8443", "http://api.example.com:8443"],
            ["https://api.example.com", "http://api.example.com"],
        ),
        ("192.0.2.1", ["http://192.0.2.1", "http://[::ffff:192.0.2.1]"], ["http://192.0.2.2", "http://192.0.2.1:81"]),
        ("[2001:db8::1]:8443", ["https://[2001:db8:0:0::1]:8443"], ["https://[2001:db8::1]", "https://[2001:db8::2]"]),
        ("xn--bcher-kva.example", ["https://bücher.example", "https://BÜCHER.example"], ["https://bucher.example"]),
    ],
)
def test_a_host_is_granted_as_it_is_written(pattern: str, granted: list[str], refused: list[str]) -> None:
    entry = HostPattern.parse(pattern)
    assert [url for url in granted if not entry.grants(Url.parse(url))] == []
    assert [url for url in refused if entry.grants(Url.parse(url))] == []


@pytest.mark.parametrize(
    "pattern", ["*", "*.", "", "*.192.0.2.1", "2130706433", "0x7f.1", "api.example.com:0", "a b", "[fe80::1%eth0]"]
)
def test_an_entry_that_names_no_host_is_refused(pattern: str) -> None:
    with pytest.raises(UrlRefused):
        HostPattern.parse(pattern)


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "2a00:1450:4001::1", "64:ff9b::808:808"])
def test_what_is_public_may_be_reached(address: str) -> None:
    assert refused_address(ip_address(address)) is None


@pytest.mark.parametrize(
    ("address", "what"),
    [
        ("0.0.0.0", "this machine"),
        ("10.1.2.3", "private"),
        ("100.64.0.1", "carrier"),
        ("100.100.100.200", "metadata"),
        ("127.0.0.1", "loopback"),
        ("127.255.255.254", "loopback"),
        ("168.63.129.16", "platform service"),
        ("169.254.169.254", "metadata"),
        ("169.254.170.2", "link-local"),
        ("172.31.255.255", "private"),
        ("192.0.0.192", "metadata"),
        ("192.0.2.1", "documentation"),
        ("192.88.99.1", "6to4"),
        ("192.168.0.1", "private"),
        ("198.19.0.1", "benchmarks"),
        ("203.0.113.9", "documentation"),
        ("224.0.0.1", "multicast"),
        ("255.255.255.255", "reserved"),
        ("::", "this machine"),
        ("::1", "loopback"),
        ("::7f00:1", "out of use"),
        ("::ffff:127.0.0.1", "loopback"),
        ("::ffff:0:127.0.0.1", "reserved"),
        ("64:ff9b::127.0.0.1", "loopback address behind NAT64"),
        ("64:ff9b::a9fe:a9fe", "metadata service of clouds behind NAT64"),
        ("64:ff9b:1::808:808", "translated locally"),
        ("100::1", "discards"),
        ("2001::1", "Teredo"),
        ("2001:10::1", "protocols"),
        ("2001:db8::1", "documentation"),
        ("2002:7f00:1::", "6to4"),
        ("2002:808:808::1", "6to4"),
        ("2606:4700::5efe:7f00:1", "ISATAP"),
        ("3fff::1", "documentation"),
        ("4000::1", "reserved"),
        ("5f00::1", "reserved"),
        ("fd00:ec2::254", "metadata"),
        ("fd12:3456::1", "private"),
        ("fe80::1", "link-local"),
        ("fe80::1%eth0", "link-local"),
        ("fec0::1", "private"),
        ("ff02::1", "multicast"),
    ],
)
def test_what_is_not_public_is_refused_and_named(address: str, what: str) -> None:
    assert what in (refused_address(ip_address(address)) or "nothing")


@given(st.ip_addresses())
def test_nothing_that_python_knows_to_be_special_gets_through(address: IPv4Address | IPv6Address) -> None:
    known = plain(address)
    special = not known.is_global or known.is_multicast or known.is_reserved
    translated = isinstance(address, IPv6Address) and address in ip_network("64:ff9b::/96")
    if special and not translated:
        assert refused_address(address) is not None


def test_what_an_operator_permits_may_be_reached_and_nothing_beside_it() -> None:
    permitted = [ip_network("10.1.0.0/16"), ip_network("fd00::/64")]
    assert refused_address(ip_address("10.1.2.3"), permitted) is None
    assert refused_address(ip_address("::ffff:10.1.2.3"), permitted) is None
    assert refused_address(ip_address("fd00::1"), permitted) is None
    assert refused_address(ip_address("10.2.0.1"), permitted) == "a private address"
    assert refused_address(ip_address("64:ff9b::10.1.2.3"), permitted) is not None
    assert refused_address(ip_address("127.0.0.1"), permitted) == "a loopback address"
