# Asks for a name and for a page.
import socket
import urllib.request

try:
    print("RESOLVED", socket.getaddrinfo("example.com", 80))
except OSError as e:
    print("name:", type(e).__name__)
try:
    print("FETCHED", urllib.request.urlopen("http://127.0.0.1:2358/healthz", timeout=2).status)
except OSError as e:
    print("page:", type(e).__name__)
