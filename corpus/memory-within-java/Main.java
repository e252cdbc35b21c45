// Holds 200 MiB in a heap that has room for them.
public class Main {
    public static void main(String[] args) {
        byte[][] all = new byte[200][];
        for (int i = 0; i < 200; i++) all[i] = new byte[1 << 20];
        System.out.println(all.length);
    }
}
