// Fills its heap: the runtime reports it, the kernel never has to.
import java.util.ArrayList;
import java.util.List;

public class Main {
    public static void main(String[] args) {
        List<byte[]> all = new ArrayList<>();
        for (int i = 0; i < 2048; i++) all.add(new byte[1 << 20]);
        System.out.println("had 2 GiB");
    }
}
