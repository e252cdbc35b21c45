// An uncaught exception.
public class Main { public static void main(String[] args) { int[] a = new int[1]; a[args.length + 1] = 1; } }
