# Serves one connection on a fixed port and closes it first, so that the port would stay in TIME_WAIT.
import socket

server = socket.socket()
server.bind(("127.0.0.1", 8080))
server.listen()
client = socket.create_connection(("127.0.0.1", 8080))
connection, _ = server.accept()
connection.close()
server.close()
print("client read", client.recv(1))
client.close()
