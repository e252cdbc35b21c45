// Starts a shell from Java and looks at the limits it sees.
public class Main {
    public static void main(String[] args) throws Exception {
        Process p = new ProcessBuilder("/bin/sh", "-c", "echo from a shell").inheritIO().start();
        System.out.println(p.waitFor());
    }
}
