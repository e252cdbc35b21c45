// The public class has not the name of the file.
public class Other { public static void main(String[] args) { } }
