// The program asks for exit code 137; nobody killed it.
public class Main { public static void main(String[] args) { System.exit(137); } }
