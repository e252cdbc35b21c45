println System.in.newReader().readLine().split(" ")*.toLong().sum()
