// Recurses 200,000 deep: the stack limit reaches the runtime.
public class Main {
    static int f(int n) { return n == 0 ? 0 : 1 + f(n - 1); }
    public static void main(String[] args) { System.out.println(f(200000)); }
}
